"""Hugging Face's `speech-to-speech` as a realtime server: its whole protocol layer, and a pipeline without models.

Runs in an environment of its own (`third_party_server.txt`): `third_party_server.py PORT`. In place of speech
recognition, a language model and a voice, the pipeline detects turns by energy and answers with the caller's own words.
"""

import logging
import queue
import sys
import threading

import numpy
from speech_to_speech.api.openai_realtime.pipeline_unit import PipelineUnit
from speech_to_speech.api.openai_realtime.server import RealtimeServer
from speech_to_speech.api.openai_realtime.service import RealtimeService
from speech_to_speech.pipeline.cancel_scope import CancelScope
from speech_to_speech.pipeline.control import is_control_message
from speech_to_speech.pipeline.events import (
    AssistantOutputEvent,
    AssistantResponseDoneEvent,
    SpeechStartedEvent,
    SpeechStoppedEvent,
    TranscriptionCompletedEvent,
)
from speech_to_speech.pipeline.messages import AUDIO_RESPONSE_DONE, AudioOutput, GenerateResponseRequest

RATE = 16_000  # of the pipeline; the server resamples for its clients
LOUD = 300.0  # RMS that counts as speech
LEAD = RATE * 3 // 10  # what is kept from before speech was noticed
QUIET_END = RATE // 2  # silence that ends a turn


class WordsBack:
    """The stub pipeline of one unit."""

    def __init__(self, unit):
        self.unit, self.turns, self.last_words = unit, 0, numpy.zeros(0, numpy.int16)
        self._forget()

    def _forget(self):
        self.words, self.speaking, self.quiet, self.heard = numpy.zeros(0, numpy.int16), False, 0, 0

    def listen(self):
        """Audio in, turn events out."""
        while True:
            item = self.unit.input_queue.get()
            if is_control_message(item):
                self._forget()
                self.unit.output_queue.put(item)
                continue
            self._take(numpy.frombuffer(item[0], "<i2"))

    def _take(self, samples):
        self.heard += len(samples)
        loud = numpy.sqrt((samples.astype(float) ** 2).mean()) > LOUD
        self.words = numpy.concatenate([self.words, samples])
        if not self.speaking:
            self.words = self.words[-LEAD - len(samples) :]
            if loud:
                self.speaking, self.quiet, self.turns = True, 0, self.turns + 1
                self._tell(SpeechStartedEvent(audio_start_ms=self._now_ms(), turn_id=str(self.turns), turn_revision=0))
            return
        self.quiet = 0 if loud else self.quiet + len(samples)
        if self.quiet >= QUIET_END:
            self.last_words, self.words, self.speaking = self.words, self.words[:0], False
            turn = {"turn_id": str(self.turns), "turn_revision": 0}
            self._tell(SpeechStoppedEvent(audio_end_ms=self._now_ms(), duration_s=len(self.last_words) / RATE, **turn))
            self._tell(TranscriptionCompletedEvent(transcript="words", **turn))

    def _now_ms(self):
        return self.heard * 1000 // RATE

    def _tell(self, event):
        self.unit.text_output_queue.put(event)

    def answer(self):
        """Requests for a response in, audio out."""
        while True:
            request = self.unit.text_prompt_queue.get()
            if isinstance(request, GenerateResponseRequest):
                self._say(request)

    def _say(self, request):
        common = {"response_key": request.response_key, "cancel_generation": self.unit.cancel_scope.generation}
        turn = {"turn_id": request.turn_id, "turn_revision": request.turn_revision}
        put = self.unit.output_queue.put
        put(AssistantOutputEvent(text="words", **common, **turn))
        if request.turn_id:  # a greeting has no words to give back
            put(AudioOutput(audio=self.last_words.tobytes(), **common))
        put(AssistantResponseDoneEvent(**common, **turn))
        put(AudioOutput(audio=AUDIO_RESPONSE_DONE, **common))


def main():
    logging.basicConfig(level=logging.INFO)
    prompts, should_listen = queue.Queue(), threading.Event()
    should_listen.set()
    unit = PipelineUnit(
        index=0,
        service=RealtimeService(text_prompt_queue=prompts, should_listen=should_listen),
        cancel_scope=CancelScope(),
        should_listen=should_listen,
        response_playing=threading.Event(),
        input_queue=queue.Queue(),
        output_queue=queue.Queue(),
        text_output_queue=queue.Queue(),
        text_prompt_queue=prompts,
        handlers=[],
    )
    pipeline = WordsBack(unit)
    for work in (pipeline.listen, pipeline.answer):
        threading.Thread(target=work, daemon=True).start()
    RealtimeServer(threading.Event(), [unit], host="127.0.0.1", port=int(sys.argv[1])).run()


main()
