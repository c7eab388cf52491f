"""A phrase goes through the bridge to the built-in agent and comes back: how much of it can be understood?"""

import asyncio

import bridge as server
import measure
import speech
from caller import Caller

LIMIT_SEC = 120
# The phrase scores 0.97 after two codings at WhatsApp's 20 kbit/s (1 is the same signal). What is not the phrase scores
# 0.15 to 0.45 at its best alignment: silence, noise of the phrase's own spectrum, other words of the same voice. The
# bars leave a gap of 0.25 that neither side has come near.
HEARD_MIN = 0.85
CONTROL_MAX = 0.6
GREETING_SEC = 4  # the agent may greet; callers wait politely
REPLY_SEC = 4  # end-of-turn detection, and the way there and back


def run(report):
    folder = server.EVIDENCE
    folder.mkdir(parents=True, exist_ok=True)
    phrase = speech.spoken(speech.PHRASE, folder)
    said = {
        "phrase": phrase,
        "silence": speech.silence(len(phrase) / speech.RATE),
        "noise": speech.shaped_noise(phrase),
        "other words": speech.spoken(speech.OTHER_PHRASE, folder),
    }
    with server.running("intelligibility", BRIDGE_AGENT="builtin") as bridge:
        heard = asyncio.run(all_calls(bridge, said))
    scores = {}
    for name, samples in heard.items():
        speech.save(folder / f"heard-{name.replace(' ', '-')}.wav", samples)
        scores[name], at = measure.intelligibility(phrase, samples, speech.RATE)
        report.note(
            f"STOI of the phrase in what came back for {name}",
            f"{scores[name]:.3f} at {at:.2f} s of {len(samples) / speech.RATE:.1f} s",
        )
    report.check(
        "the phrase comes back intelligible", scores["phrase"] >= HEARD_MIN, f"{scores['phrase']:.3f}, bar {HEARD_MIN}"
    )
    for name in ("silence", "noise", "other words"):
        report.check(
            f"the same measure is far lower for {name}",
            scores[name] <= CONTROL_MAX,
            f"{scores[name]:.3f}, bar {CONTROL_MAX}",
        )


async def all_calls(bridge, said):
    """One call each, at once; what each caller heard."""

    async def one(samples):
        async with Caller() as caller:
            await caller.call(bridge)
            await asyncio.sleep(GREETING_SEC)
            await asyncio.sleep(caller.voice.say(samples))
            await asyncio.sleep(REPLY_SEC + len(samples) / speech.RATE)
            await asyncio.to_thread(bridge.hang_up, caller.call_id)
            return caller.heard()

    return dict(zip(said, await asyncio.gather(*(one(samples) for samples in said.values()))))
