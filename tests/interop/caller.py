"""A WhatsApp caller made of aiortc: ICE-lite, DTLS server, silent until it hears RTP, Opus at 20 ms.

The offer goes out laid out as WhatsApp's; the answer is applied as it came. Everything that arrives is kept: each RTP
header with its time, and the decoded audio.
"""

import asyncio
import base64
import collections
import fractions
import secrets
import struct
import time

import aiortc
import av
import numpy

import offer
import speech
from ice_lite import LiteAgent

Packet = collections.namedtuple("Packet", "at ssrc payload_type sequence timestamp size")
FRAME = speech.RATE // 50
END_REPEATS = 3  # RFC 4733 section 2.5.1.4: the end of an event is sent three times
DTMF_EVENTS = "0123456789*#"


class Voice(aiortc.MediaStreamTrack):
    """What the caller's microphone gives: silence, and whatever was said, on an absolute beat."""

    kind = "audio"

    def __init__(self):
        super().__init__()
        self.may_speak = asyncio.Event()
        self._frames = collections.deque()
        self._started = None
        self._count = 0

    def say(self, samples):
        """Queues 48 kHz mono int16; returns how long it lasts, in seconds."""
        padded = numpy.concatenate([samples, numpy.zeros(-len(samples) % FRAME, numpy.int16)])
        self._frames.extend(padded.reshape(-1, 1, FRAME))
        return len(padded) / speech.RATE

    async def recv(self):
        await self.may_speak.wait()
        loop = asyncio.get_running_loop()
        self._started = self._started or loop.time()
        await asyncio.sleep(max(0, self._started + self._count * 0.02 - loop.time()))
        samples = self._frames.popleft() if self._frames else numpy.zeros((1, FRAME), numpy.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.time_base = speech.RATE, fractions.Fraction(1, speech.RATE)
        frame.pts = self._count * FRAME
        self._count += 1
        return frame


class Caller:
    """One call, seen from the relay."""

    def __init__(self):
        self.call_id = new_call_id()
        self.connection = aiortc.RTCPeerConnection()
        self.voice = Voice()
        self.packets = []
        self.sent_packets = 0
        self.sent_before_hearing = 0
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self._heard = []
        self._tones = collections.deque()
        self.connection.addTrack(self.voice)
        self.connection.on("track", self._on_track)
        self.connection.on("connectionstatechange", self._on_state)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await asyncio.wait_for(self.connection.close(), 10)

    async def offer(self):
        """Opens the socket and returns the offer."""
        [transceiver] = self.connection.getTransceivers()
        self.dtls = transceiver.sender.transport
        username, password = offer.credentials()
        self.ice = LiteAgent(self.dtls.transport._connection, username, password)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        self.ice.watch()
        self._hook_packets()
        [candidate] = self.dtls.transport.iceGatherer.getLocalCandidates()
        [fingerprint] = [f for f in self.dtls.getLocalParameters().fingerprints if f.algorithm == "sha-256"]
        return offer.whatsapp_offer(
            candidate.ip, candidate.port, username, password, fingerprint.value, transceiver.sender._ssrc
        )

    async def apply(self, answer):
        """Takes the answer; ICE and DTLS start."""
        await self.connection.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))

    async def call(self, bridge, config=None, connect_sec=10):
        """Posts the offer as the deployed webhook does, applies the answer, waits for media; returns the reply."""
        status, reply, _ = await asyncio.to_thread(
            bridge.request, "POST", "/api/sessions", webhook_body(self.call_id, await self.offer(), config)
        )
        if status != 200:
            raise RuntimeError(f"POST /api/sessions answered {status}: {reply}")
        await self.apply(reply["sdpAnswer"])
        await asyncio.wait_for(self.connected.wait(), connect_sec)
        return reply

    def heard(self):
        """All audio that came so far: 48 kHz mono int16."""
        return numpy.concatenate(self._heard) if self._heard else numpy.zeros(0, numpy.int16)

    def press(self, digit, duration_ms=200):
        """Presses a key: telephone-event packets take the place of as many audio packets (RFC 4733)."""
        steps = max(duration_ms // 20, 1)
        event = DTMF_EVENTS.index(digit)
        for step in range(1, steps + END_REPEATS):
            ended = 0x80 if step >= steps else 0
            self._tones.append((step == 1, struct.pack("!BBH", event, ended | 10, min(step, steps) * 160)))

    def _on_state(self):
        if self.connection.connectionState == "connected":
            self.connected.set()
        elif self.connection.connectionState in ("closed", "failed"):
            self.closed.set()

    def _on_track(self, track):
        async def listen():
            try:
                while True:
                    frame = await track.recv()
                    self._heard.append(frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0])
            except aiortc.mediastreams.MediaStreamError:
                pass

        self._listening = asyncio.ensure_future(listen())

    def _hook_packets(self):
        take, send = self.dtls._handle_rtp_data, self.dtls._send_rtp

        async def taken(data, arrival_time_ms):
            _, kind, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
            self.packets.append(Packet(time.monotonic(), ssrc, kind & 0x7F, sequence, timestamp, len(data)))
            self.voice.may_speak.set()
            await take(data, arrival_time_ms)

        async def sent(data):
            if not 192 <= data[1] <= 223:  # RFC 5761: not RTCP
                self.sent_packets += 1
                self.sent_before_hearing += not self.packets
                data = self._with_tone(data)
            await send(data)

        self.dtls._handle_rtp_data, self.dtls._send_rtp = taken, sent

    def _with_tone(self, data):
        if not self._tones:
            return data
        first, payload = self._tones.popleft()
        if first:
            self._tone_timestamp = data[4:8]
        return bytes([data[0], 126 | (0x80 if first else 0)]) + data[2:4] + self._tone_timestamp + data[8:12] + payload


def new_call_id():
    """As WhatsApp's: base64 that hides two phone numbers, with the characters that paths cannot carry."""
    return "wacid." + base64.b64encode(b"\x1c\x18\x0c250788000001\x15\x02\xff\xff" + secrets.token_bytes(20)).decode()


def webhook_body(call_id, sdp_offer, config=None):
    """What the deployed webhook posts, retired model name and all."""
    return {
        "callId": call_id,
        "sdpOffer": sdp_offer,
        "from": "250788000001",
        "config": {
            "voice": "alloy",
            "instructions": "You are a helpful assistant. Answer in one or two short sentences.",
            "model": "gpt-4o-realtime-preview",
        }
        | (config or {}),
    }
