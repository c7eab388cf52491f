"""Every event the bridge sends to the model is valid in the official SDK's schema, unknown keys forbidden."""

import asyncio
import collections
import copy
import time

import numpy

import bridge as server
import measure
import model as fake
import schema
import speech
from caller import Caller, webhook_body

LIMIT_SEC = 120
KEY, ORGANISATION, PROJECT = "sk-interop-canary", "org-interop", "proj_interop"
CONFIG = {
    "instructions": 'Say "muraho", and keep it short.\nAlways.',
    "voice": "shimmer",
    "language": "fr",
    "greeting": "Muraho, how can I help?",
    "tools": [
        {
            "type": "function",
            "name": "find_order",
            "description": "Finds an order",
            "parameters": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
        }
    ],
    "turnDetection": {"type": "semantic_vad", "eagerness": "high", "create_response": True, "interrupt_response": True},
    "transcription": {"model": "gpt-transcribe", "language": "fr"},
}
UPLINK_MIN = 0.85  # one wideband coding of clean speech scores well above 0.9


def run(report):
    the_judge_judges(report)
    asyncio.run(a_scripted_call(report))
    asyncio.run(a_refusing_model(report))


def the_judge_judges(report):
    """Positive controls: the schema rejects what the live service rejects."""
    good = {
        "type": "session.update",
        "session": {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}},
    }
    report.check("the schema accepts a plain session.update", schema.client().complaint(good) is None)
    for key, value in (("temperature", 0.8), ("input_audio_format", "pcm16"), ("modalities", ["audio"])):
        bad = copy.deepcopy(good)
        bad["session"][key] = value
        report.check(
            f"it rejects session.{key}", schema.client().complaint(bad), schema.client().complaint(bad) or "accepted"
        )
    bad = copy.deepcopy(good)
    bad["session"]["audio"]["input"]["format"]["rate"] = 16000
    report.check("it rejects PCM at 16 kHz", schema.client().complaint(bad))
    bad = {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 12.5}
    report.check("it rejects half a millisecond", schema.client().complaint(bad))


async def a_scripted_call(report):
    async with fake.Model() as model, Caller() as caller:
        settings = {"OPENAI_REALTIME_URL": model.url, "OPENAI_API_KEY": KEY}
        settings |= {"OPENAI_ORG_ID": ORGANISATION, "OPENAI_PROJECT_ID": PROJECT}
        async with running("model_events", **settings) as bridge:
            calling = asyncio.ensure_future(caller.call(bridge, CONFIG))
            session = await model.session()
            await asyncio.gather(calling, the_session_opens(report, session))
            await the_greeting_is_cut_short(report, session, caller)
            await the_caller_is_understood(report, session, caller)
            await a_function_is_called(report, session)
            await a_key_is_pressed(report, session, caller)
            await oddities_do_no_harm(report, session, bridge, caller)
            await asyncio.to_thread(bridge.hang_up, caller.call_id)
            closed = await within(session.closed.wait(), 3)
            report.check("hanging up closes the model's socket", closed)
        log = bridge.log.read_text(errors="replace")
        report.check(
            "the log holds no key, no call id, no phone number",
            not any(word in log for word in (KEY, caller.call_id, "250788000001")),
        )
    every_event_is_valid(report, session)


async def the_session_opens(report, session):
    headers = {name.lower(): value for name, value in session.headers.raw_items()}
    wanted = {"authorization": f"Bearer {KEY}", "openai-organization": ORGANISATION, "openai-project": PROJECT}
    report.check(
        "key, organisation and project are in the handshake",
        wanted.items() <= headers.items(),
        ", ".join(name for name in wanted if headers.get(name) != wanted[name]),
    )
    report.check("the beta header is not", "openai-beta" not in headers)
    report.check(
        "the retired model of the request became the default",
        session.path == "/v1/realtime?model=gpt-realtime-2.1",
        session.path,
    )
    await asyncio.sleep(0.3)
    report.check(
        "nothing is sent before session.created", not session.events, [event.body["type"] for event in session.events]
    )
    update = await session.open(after_sec=0.5)
    kinds = [event.body["type"] for event in session.events]
    report.check("no audio is sent before session.updated", kinds == ["session.update"], kinds[:5])
    asked = update["session"]
    given = [asked.get("instructions", "").startswith(CONFIG["instructions"]), asked.get("tools") == CONFIG["tools"]]
    given += [asked["audio"]["output"].get("voice") == "shimmer"]
    given += [asked["audio"]["input"].get("turn_detection") == CONFIG["turnDetection"]]
    given += [(asked["audio"]["input"].get("transcription") or {}).get("model") == "gpt-transcribe"]
    report.check("session.update carries what the request asked for", all(given), given)


async def the_greeting_is_cut_short(report, session, caller):
    asked = await session.wait_for("response.create")
    text = str(asked)
    report.check("the model is asked to greet with the text given", CONFIG["greeting"] in text, text[:160])
    response, item = await session.begin_response()
    first = time.monotonic()
    await session.say(response, item, fake.tone(8))
    await asyncio.sleep(1.5)
    mark = len(session.events)
    await session.send("input_audio_buffer.speech_started", audio_start_ms=1500, item_id=session.new_id("item"))
    told = time.monotonic()
    truncate = await session.wait_for("conversation.item.truncate", mark)
    if not report.check(
        "speaking over the model truncates its item", truncate and truncate["item_id"] == item, truncate
    ):
        return
    await asyncio.sleep(1)
    heard_ms = tone_ms(caller.heard())
    said_ms = truncate["audio_end_ms"]
    report.check(
        "at the milliseconds the caller has been sent",
        abs(said_ms - heard_ms) <= 60,
        f"truncated at {said_ms} ms, heard {heard_ms} ms",
    )
    report.note(
        "the tone stopped",
        f"{heard_ms - (told - first) * 1000:+.0f} ms after the model's word, the way there taken off",
    )
    await session.send("conversation.item.truncated", item_id=item, content_index=0, audio_end_ms=said_ms)
    await session.say(response, item, fake.tone(1))
    await session.end_response(response, item, "cancelled")
    await asyncio.sleep(0.5)
    report.check(
        "late audio of a cut item is not played",
        tone_ms(caller.heard()) <= heard_ms + 5,
        f"{tone_ms(caller.heard())} ms",
    )


async def the_caller_is_understood(report, session, caller):
    folder = server.EVIDENCE
    phrase = await asyncio.to_thread(speech.spoken, speech.PHRASE, folder)
    mark, started = len(session.events), time.monotonic()
    await asyncio.sleep(caller.voice.say(phrase) + 1)
    elapsed, samples = time.monotonic() - started, session.appended(mark)
    speech.save(folder / "appended.wav", samples, fake.RATE)
    rate = len(samples) / elapsed
    report.check(
        "audio is appended at 24 kHz in real time",
        abs(rate / fake.RATE - 1) < 0.03,
        f"{rate:.0f} samples/s over {elapsed:.1f} s",
    )
    score, at = measure.intelligibility(speech.resampled(phrase, fake.RATE), samples, fake.RATE)
    report.check("what the model hears is intelligible", score >= UPLINK_MIN, f"STOI {score:.3f}, at {at:.2f} s")
    await session.send("input_audio_buffer.speech_stopped", audio_end_ms=4000, item_id="item_said")
    await session.send("input_audio_buffer.committed", item_id="item_said", previous_item_id=None)


async def a_function_is_called(report, session):
    mark = len(session.events)
    call = await session.call_function("find_order", '{"number":"12"}')
    result = await session.wait_for("conversation.item.create", mark)
    given = result and result["item"]["type"] == "function_call_output" and result["item"]["call_id"] == call
    report.check("a function call is answered with an output for its call id", given, str(result)[:200])
    again = await session.wait_for("response.create", mark)
    await asyncio.sleep(0.3)
    report.check("and one response.create after it", again and len(session.of_type("response.create", mark)) == 1)
    response, item = await session.begin_response()
    await session.say(response, item, fake.tone(0.4))
    await session.end_response(response, item)
    await asyncio.sleep(0.6)


async def a_key_is_pressed(report, session, caller):
    mark = len(session.events)
    caller.press("5")
    created = await session.wait_for("conversation.item.create", mark, 3)
    text = str(created["item"].get("content")) if created else "nothing came"
    report.check("a key pressed by the caller reaches the model as text", "5" in text, text[:160])
    await asyncio.sleep(0.5)
    items = len(session.of_type("conversation.item.create", mark))
    report.check("once, though its end is sent three times", items == 1, items)
    if session.of_type("response.create", mark):
        response, item = await session.begin_response()
        await session.say(response, item, fake.tone(0.2))
        await session.end_response(response, item)
        await asyncio.sleep(0.4)


async def oddities_do_no_harm(report, session, bridge, caller):
    """What the live service is known to send, and what it may send one day."""
    mark = len(session.events)
    response, item = await session.begin_response()
    await session.send("input_audio_buffer.speech_started", audio_start_ms=9000, item_id=session.new_id("item"))
    await session.end_response(response, item, "cancelled")
    error = {"type": "invalid_request_error", "code": "response_cancel_not_active", "message": "No active response."}
    await session.send("error", error=error)
    await session.send_raw({"type": "response.something_new", "event_id": "e", "data": {"a": [1]}})
    limits = [{"name": "tokens", "limit": 1000, "remaining": 900, "reset_seconds": 1.5}]
    await session.send("rate_limits.updated", rate_limits=limits)
    await asyncio.sleep(1)
    cut = session.of_type("conversation.item.truncate", mark)
    report.check("an item of which nothing was heard is not truncated", not cut, cut)
    status, seen = await asyncio.to_thread(bridge.session, caller.call_id)
    report.check(
        "benign errors and unknown events do not end the call",
        seen.get("state") == "active" and len(session.events) > mark,
        seen.get("state"),
    )


def every_event_is_valid(report, session):
    bodies = [event.body for event in session.events]
    complaints = [complaint for body in bodies if (complaint := schema.client().complaint(body))]
    counts = collections.Counter(body["type"] for body in bodies)
    report.check(
        "every event sent is valid, unknown keys forbidden",
        bodies and not complaints,
        "; ".join(sorted(set(complaints))[:5]) or dict(counts),
    )


async def a_refusing_model(report):
    body = '{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}'
    async with fake.Model(refuse_with=(401, body)) as model, Caller() as caller:
        async with running("model_refuses", OPENAI_REALTIME_URL=model.url, OPENAI_API_KEY=KEY) as bridge:
            status, reply, _ = await asyncio.to_thread(
                bridge.request, "POST", "/api/sessions", webhook_body(caller.call_id, await caller.offer())
            )
            report.check("the HTTP answer does not wait for the model", status == 200, status)
            await caller.apply(reply["sdpAnswer"])
            seen, until = {}, time.monotonic() + 15
            while seen.get("state") != "ended" and time.monotonic() < until:
                await asyncio.sleep(0.1)
                seen = (await asyncio.to_thread(bridge.session, caller.call_id))[1]
            report.check(
                "a model that refuses the upgrade ends the call as agent_http",
                "agent_http" in str(seen),
                {k: seen.get(k) for k in ("state", "closeReason", "closeDetail")},
            )
        log = bridge.log.read_text(errors="replace")
        report.check("and the log says with which status, and not the key", "401" in log and KEY not in log)


class running:
    """`bridge.running` without blocking the event loop."""

    def __init__(self, *words, **settings):
        self._inner = server.running(*words, **settings)

    async def __aenter__(self):
        return await asyncio.to_thread(self._inner.__enter__)

    async def __aexit__(self, *exception):
        return await asyncio.to_thread(self._inner.__exit__, *exception)


async def within(waiting, seconds):
    """Whether it came true in time."""
    try:
        await asyncio.wait_for(waiting, seconds)
        return True
    except TimeoutError:
        return False


def tone_ms(samples):
    """How many milliseconds of this 48 kHz audio are loud."""
    frames = samples[: len(samples) // 240 * 240].reshape(-1, 240).astype(float)
    return int((numpy.sqrt((frames**2).mean(axis=1)) > 1000).sum() * 5)
