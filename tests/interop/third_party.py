"""A realtime server that we did not write is the model: Hugging Face's speech-to-speech."""

import asyncio
import contextlib
import http.client
import time

import bridge as server
import measure
import speech
from caller import Caller

LIMIT_SEC = 120
PYTHON = server.EVIDENCE / "venv-third-party" / "bin" / "python"
START_SEC = 40  # its imports are slow on a loaded machine
HEARD_MIN = 0.85  # as in `intelligibility`; the server resamples to 16 kHz and back besides


def run(report):
    folder = server.EVIDENCE
    phrase = speech.spoken(speech.PHRASE, folder)
    with realtime_server() as url:
        settings = {"OPENAI_REALTIME_URL": url, "OPENAI_API_KEY": "sk-interop"}
        with server.running("third_party", **settings) as bridge:
            heard, session = asyncio.run(a_call(bridge, phrase))
            report.check("the session comes up and the call stands", session["state"] == "active", session.get("agent"))
            speech.save(folder / "heard-third-party.wav", heard)
            score, at = measure.intelligibility(phrase, heard, speech.RATE)
            report.check(
                "the phrase comes back intelligible through it", score >= HEARD_MIN, f"STOI {score:.3f} at {at:.2f} s"
            )
            await_idle(url)
            agent = asyncio.run(an_interruption(bridge, phrase)).get("agent", {})
            report.check("speaking over the reply is a barge-in", agent.get("bargeIns", 0) >= 1, agent)
            report.check("no call is left", bridge.live_calls()[0] == 0)


def await_idle(url):
    """The server has one place, which is free only some time after a session has ended."""
    host = url.split("/")[2]
    until = time.monotonic() + START_SEC
    while time.monotonic() < until:
        connection = http.client.HTTPConnection(host, timeout=2)
        connection.request("GET", "/v1/pool")
        pool = connection.getresponse().read().decode()
        connection.close()
        if '"idle"' in pool:
            return
        time.sleep(0.1)
    raise RuntimeError(f"the realtime server keeps an ended session: {pool}")


async def a_call(bridge, phrase):
    async with Caller() as caller:
        await caller.call(bridge)
        await asyncio.sleep(2)
        await asyncio.sleep(caller.voice.say(phrase))
        await asyncio.sleep(3 + len(phrase) / speech.RATE)
        session = (await asyncio.to_thread(bridge.session, caller.call_id))[1]
        await asyncio.to_thread(bridge.hang_up, caller.call_id)
        return caller.heard(), session


async def an_interruption(bridge, phrase):
    async with Caller() as caller:
        await caller.call(bridge)
        await asyncio.sleep(1)
        await asyncio.sleep(caller.voice.say(phrase) + 2)
        await asyncio.sleep(caller.voice.say(phrase[: speech.RATE]) + 1)
        session = (await asyncio.to_thread(bridge.session, caller.call_id))[1]
        await asyncio.to_thread(bridge.hang_up, caller.call_id)
        return session


@contextlib.contextmanager
def realtime_server():
    """Started, awaited, ended; its log is kept."""
    port = server.free_port()
    program = server.pathlib.Path(__file__).with_name("third_party_server.py")
    is_up = lambda response: response.status == 200
    command = [PYTHON, program, str(port)]
    with server.program("the realtime server", command, "third-party-server.log", port, "/v1/pool", is_up):
        yield f"ws://127.0.0.1:{port}/v1/realtime"
