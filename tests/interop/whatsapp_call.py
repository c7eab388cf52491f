"""aiortc calls as WhatsApp's relay would, through the deployed webhook's HTTP contract."""

import asyncio
import time

import numpy

import bridge as server
from caller import Caller, webhook_body
from metronome import Beside

LIMIT_SEC = 120
LISTEN_SEC = 8  # the greeting, and silence after it
SKIPPED_MAX = 0.05


def run(report):
    for driver in ("auto", "epoll"):
        report.note(f"with BRIDGE_IO={driver}")
        with server.running(f"whatsapp_call-{driver}", BRIDGE_AGENT="builtin", BRIDGE_IO=driver) as bridge:
            asyncio.run(a_call_from_offer_to_hangup(report, bridge))
            asyncio.run(the_caller_hangs_up(report, bridge))
            asyncio.run(two_calls_at_once(report, bridge))
            report.check("no call is left", bridge.live_calls()[0] == 0)


async def a_call_from_offer_to_hangup(report, bridge):
    async with Caller() as caller:
        sdp_offer = await caller.offer()
        body = webhook_body(caller.call_id, sdp_offer)
        posted = time.monotonic()
        status, reply, _ = await asyncio.to_thread(bridge.request, "POST", "/api/sessions", body)
        answered_ms = (time.monotonic() - posted) * 1000
        report.check(
            "the webhook's request, retired model and all, is answered with 200",
            status == 200,
            reply if status != 200 else f"{answered_ms:.1f} ms",
        )
        report.check(
            "the reply names the call and its session",
            reply["success"] is True and reply["callId"] == caller.call_id and bool(reply["sessionId"]),
        )

        again = await asyncio.to_thread(bridge.request, "POST", "/api/sessions", body)
        report.check(
            "the same request again gets the same answer",
            again[0] == 200 and again[1]["sdpAnswer"] == reply["sdpAnswer"],
        )
        other = webhook_body(caller.call_id, sdp_offer.replace("ice-ufrag:", "ice-ufrag:x"))
        status = (await asyncio.to_thread(bridge.request, "POST", "/api/sessions", other))[0]
        report.check("the same call with another offer is refused with 409", status == 409, status)

        applied = time.monotonic()
        await caller.apply(reply["sdpAnswer"])
        await asyncio.wait_for(caller.connected.wait(), 10)
        report.check(
            "ICE and DTLS come up with a lite, passive peer", True, f"{(time.monotonic() - applied) * 1000:.0f} ms"
        )
        waited = await asyncio.to_thread(bridge.session, caller.call_id, "?wait=connected")
        report.check("the webhook can wait for the connection", waited[0] == 200, waited[1].get("state"))

        metronome = Beside(LISTEN_SEC)
        await asyncio.sleep(LISTEN_SEC)
        its_checks(report, caller)
        its_stream(report, caller, await asyncio.to_thread(metronome.missed))

        status, session = await asyncio.to_thread(bridge.session, caller.call_id)
        report.check(
            "the call is shown as active, by its percent-encoded id",
            status == 200 and session["state"] == "active",
            session.get("state"),
        )
        count, ids = await asyncio.to_thread(bridge.live_calls)
        report.check("it is the one live call", count == 1 and ids == [caller.call_id], count)
        status, text, headers = await asyncio.to_thread(bridge.request, "GET", "/metrics")
        report.check(
            "metrics are text, and hold no call id",
            status == 200 and caller.call_id not in text,
            headers["Content-Type"],
        )

        status, stopped, _ = await asyncio.to_thread(bridge.request, "POST", "/bridge/stop", {"callId": caller.call_id})
        report.check(
            "the webhook's POST /bridge/stop hangs up", status == 200 and stopped.get("success") is True, status
        )
        await asyncio.wait_for(caller.closed.wait(), 5)
        report.check("the caller is told at once: DTLS is closed", True)
        before = len(caller.packets)
        await asyncio.sleep(0.3)
        report.check("no packet follows", len(caller.packets) == before)
        status, session = await asyncio.to_thread(bridge.session, caller.call_id)
        report.check(
            "the ended call is remembered with its reason",
            status == 200 and session["state"] == "ended" and "hangup" in str(session),
            session.get("state"),
        )
        again, unknown = [
            (await asyncio.to_thread(bridge.hang_up, name))[0] for name in (caller.call_id, "wacid.unknown")
        ]
        report.check(
            "DELETE of an ended call is 200, of an unknown one 404",
            (again, unknown) == (200, 404),
            f"{again}, {unknown}",
        )


def its_checks(report, caller):
    roles = {role for role, _ in caller.ice.checks}
    report.check("the bridge checks as the controlling agent", roles == {"ICE-CONTROLLING"}, ", ".join(sorted(roles)))
    report.check(
        "it nominates a pair", any(nominates for _, nominates in caller.ice.checks), f"{len(caller.ice.checks)} checks"
    )
    report.check("the lite peer sent no check of its own", caller.ice.requests_sent == 0)
    report.check("the peer is the DTLS server", caller.dtls._role == "server", caller.dtls._role)


def its_stream(report, caller, missed):
    packets = [packet for packet in caller.packets if packet.payload_type != 126]
    report.check("the bridge speaks first", caller.sent_before_hearing == 0 and caller.sent_packets > 0)
    report.check(
        "one SSRC, the offered payload type",
        len({(p.ssrc, p.payload_type) for p in packets}) == 1 and packets[0].payload_type == 111,
    )
    steps = {(b.sequence - a.sequence) % 65536 for a, b in zip(packets, packets[1:])}
    times = [(b.timestamp - a.timestamp) % 2**32 for a, b in zip(packets, packets[1:])]
    whole = all(step % 960 == 0 for step in times)
    report.check(
        "sequence numbers step by one, timestamps by whole frames of 20 ms", steps == {1} and whole, len(packets)
    )
    # A machine that gives the bridge no CPU for 20 ms costs a beat; on a quiet one none is skipped.
    skipped = sum(step // 960 - 1 for step in times) / len(packets)
    bar = SKIPPED_MAX + 3 * missed
    report.check(
        "no beat is skipped that a plain process would have kept",
        skipped <= bar,
        f"{skipped:.1%}, it missed {missed:.1%}",
    )
    seconds = packets[-1].at - packets[0].at
    rate = sum(times) / 960 / seconds
    report.check(
        "the timeline runs at 50 frames a second", abs(rate / 50 - 1) < 0.03, f"{rate:.2f}/s over {seconds:.1f} s"
    )
    gaps = numpy.diff([p.at for p in packets]) * 1000
    report.note(
        "time between packets",
        f"p50 {numpy.percentile(gaps, 50):.1f} ms, p99 {numpy.percentile(gaps, 99):.1f} ms, max {gaps.max():.1f} ms",
    )
    payload = numpy.median([p.size for p in packets])
    report.note("median RTP packet", f"{payload:.0f} bytes")


async def the_caller_hangs_up(report, bridge):
    async with Caller() as caller:
        await caller.call(bridge)
        await asyncio.sleep(0.5)
    until = time.monotonic() + 10
    session = {}
    while time.monotonic() < until and session.get("state") != "ended":
        await asyncio.sleep(0.1)
        session = (await asyncio.to_thread(bridge.session, caller.call_id))[1]
    report.check(
        "a caller who hangs up ends the call as peer_closed",
        session.get("state") == "ended" and "peer_closed" in str(session),
        {k: session.get(k) for k in ("state", "closeReason")},
    )


async def two_calls_at_once(report, bridge):
    """Both stand, and both are heard."""
    async with Caller() as one, Caller() as two:
        await asyncio.gather(one.call(bridge), two.call(bridge))
        await asyncio.sleep(1)
        count, ids = await asyncio.to_thread(bridge.live_calls)
        report.check(
            "two calls at once are listed, both heard",
            count == 2 and set(ids) == {one.call_id, two.call_id} and min(len(one.packets), len(two.packets)) > 20,
            f"{len(one.packets)} and {len(two.packets)} packets",
        )
        for caller in (one, two):
            await asyncio.to_thread(bridge.hang_up, caller.call_id)
