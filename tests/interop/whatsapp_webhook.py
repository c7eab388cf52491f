"""Meta's webhook by other hands: signed by openssl, Node and Python, posted by curl, Node and aiohttp, while a call is up.

The caller is aiortc, as in `whatsapp_call`, and the Graph API is the test's own: it gives the caller the bridge's answer as
Meta does.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time

import aiohttp
import numpy

import bridge as server
import meta
from caller import Caller

LIMIT_SEC = 90
MIB = 1 << 20
LONGEST = 3 * MIB  # what the bridge takes of a webhook's body
CROWD = 20  # long bodies that are announced at once: about twice as many as there is room for
DEEP = 100_000  # levels of JSON
SLOW = 8  # slow senders of each kind at once
HEAD_SEC, BODY_SEC = 5, 10  # what the bridge gives a head, and a body
QUIET_SEC = 3
SOON_MS = 2000  # far beyond what it takes on a busy machine, far below what a reader that recurses or copies would
GAP_SEC = 0.5  # a stream of 20 ms that stands still so long has been stopped


def run(report):
    asyncio.run(everything(report))


async def everything(report):
    async with Caller() as caller:

        async def connected(asked):
            """Meta gives the caller's side the answer, when it is told one."""
            if asked.action == "pre_accept":
                await caller.apply(asked.body["session"]["sdp"])

        async with meta.Graph(connected) as graph:
            with server.running("whatsapp_webhook", BRIDGE_AGENT="builtin", **meta.settings(graph.url)) as bridge:
                await asyncio.to_thread(the_verification, report, bridge)
                await asyncio.to_thread(signatures_by_others, report, bridge)
                await a_call_comes_up(report, bridge, graph, caller)
                await bodies_beside_a_call(report, bridge, caller)
                await slow_senders_beside_a_call(report, bridge, caller)
                await the_caller_hangs_up(report, bridge, graph, caller)
                await the_deployed_webhook(report, bridge)
                log = bridge.log.read_text(errors="replace")
                secrets = (meta.APP_SECRET, meta.ACCESS_TOKEN, meta.VERIFY_TOKEN, meta.CALLER, caller.call_id)
                report.check("neither secrets, numbers nor call ids are in the log", not any(s in log for s in secrets))


def the_verification(report, bridge):
    """As Meta asks when a webhook is set up."""
    query = ["-G", "--data-urlencode", "hub.mode=subscribe", "--data-urlencode", "hub.challenge=1158201444"]
    good = curl(*query, "--data-urlencode", f"hub.verify_token={meta.VERIFY_TOKEN}", bridge.url + meta.PATH)
    report.check("the verification is answered with the challenge and nothing else", good == "1158201444 200", good)
    wrong = curl(*query, "--data-urlencode", "hub.verify_token=another-word", bridge.url + meta.PATH)
    report.check(
        "another token is refused, and the challenge kept", refused(wrong) and "1158201444" not in wrong, wrong
    )
    none = curl(*query, bridge.url + meta.PATH)
    report.check("so is none", not none.endswith(" 200") and "1158201444" not in none, none)


def signatures_by_others(report, bridge):
    """Three implementations of the signature, three clients, one verdict."""
    body = meta.webhook(meta.text("Grüße, 你好 / 5 > 3"), meta.terminate("wacid.unknown"))
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        by_openssl = command("openssl", "dgst", "-sha256", "-hmac", meta.APP_SECRET, "-r", file.name).split()[0]
        program = "const c=require('crypto'),[k,f]=process.argv.slice(1);"
        program += "console.log(c.createHmac('sha256',k).update(require('fs').readFileSync(f)).digest('hex'))"
        by_node = command("node", "-e", program, meta.APP_SECRET, file.name).strip()
        report.check(
            "openssl, Node and Python sign alike", meta.signature(body) == f"sha256={by_openssl}" == f"sha256={by_node}"
        )
        for signer, digest in (("openssl", by_openssl), ("Node", by_node)):
            reply = posted(bridge, file.name, f"sha256={digest}")
            report.check(f"curl posts what {signer} has signed: 200", reply.endswith(" 200"), reply)

        last = {"0": "1", "1": "0"}.get(by_openssl[-1], "0")
        for what, value in (
            ("one digit of the signature changed", f"sha256={by_openssl[:-1]}{last}"),
            ("a signature with another secret", meta.signature(body, meta.APP_SECRET[:-1] + "x")),
            ("the signature cut short", f"sha256={by_openssl[:-2]}"),
            ("another hash's name before it", f"sha1={by_openssl}"),
            ("an empty signature", ""),
            ("no signature", None),
        ):
            reply = posted(bridge, file.name, value)
            report.check(f"{what}: refused", refused(reply), reply)
    flips, tried = 0, range(0, len(body) * 8, max(1, len(body) * 8 // 40))
    for bit in tried:
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        headers = {meta.SIGNATURE: f"sha256={by_openssl}", "Content-Type": "application/json"}
        flips += raw(bridge, bytes(flipped), headers)[0] in (401, 403)
    report.check("one bit of the body flipped, at forty places: refused each time", flips == len(tried) >= 40, flips)
    by_fetch = command("node", "-e", FETCH, bridge.url + meta.PATH, meta.APP_SECRET, stdin=body).strip()
    report.check("Node signs and fetches: 200", by_fetch == "200", by_fetch)


FETCH = """
const [url, secret] = process.argv.slice(1), body = require('fs').readFileSync(0);
const signature = 'sha256=' + require('crypto').createHmac('sha256', secret).update(body).digest('hex');
fetch(url, { method: 'POST', body, headers: { 'content-type': 'application/json', 'x-hub-signature-256': signature } })
  .then(answer => console.log(answer.status));
"""


async def a_call_comes_up(report, bridge, graph, caller):
    offer = await caller.offer()
    body = meta.webhook(meta.connect(caller.call_id, offer))
    async with aiohttp.ClientSession() as client:
        begun = time.monotonic()
        for _ in range(2):  # Meta repeats itself
            async with client.post(
                bridge.url + meta.PATH,
                data=body,
                headers={meta.SIGNATURE: meta.signature(body), "Content-Type": "application/json"},
            ) as answer:
                status, took_ms = answer.status, (time.monotonic() - begun) * 1000
    report.check("aiohttp posts a call, twice: 200", status == 200, f"both within {took_ms:.0f} ms")
    pre_accept = await graph.wait_for("pre_accept", caller.call_id)
    accept = await graph.wait_for("accept", caller.call_id, 10)
    report.check("the Graph API is told pre_accept, then accept", pre_accept and accept and pre_accept.at < accept.at)
    report.check(
        "with the same answer, byte for byte", pre_accept.body["session"] == accept.body["session"], accept.action
    )
    report.check("and the token", accept.authorization == f"Bearer {meta.ACCESS_TOKEN}")
    await asyncio.wait_for(caller.connected.wait(), 10)
    await asyncio.sleep(1)
    report.check("the caller hears the bridge", len(caller.packets) > 20, f"{len(caller.packets)} packets in a second")
    each = [len(graph.of(action)) for action in ("pre_accept", "accept", "reject", "terminate")]
    report.check("one call, though it was announced twice", each == [1, 1, 0, 0], each)


async def bodies_beside_a_call(report, bridge, caller):
    quiet = await gaps_during(caller, asyncio.sleep(QUIET_SEC))

    async def storm():
        await asyncio.to_thread(long_bodies, report, bridge)
        await asyncio.to_thread(a_crowd_of_long_bodies, report, bridge)

    noisy = await gaps_during(caller, storm())
    report.check(
        "the call goes on beside them", noisy.max() < GAP_SEC, f"longest gap {said(noisy)}, {said(quiet)} when quiet"
    )


def long_bodies(report, bridge):
    long = meta.webhook(*[meta.text("a long story " * 40, number=number) for number in range(MIB // 900)])
    report.check("(a mebibyte of messages)", len(long) > MIB, len(long))
    status, took_ms = signed(bridge, long)
    report.check("a mebibyte of messages, signed: 200", status == 200, f"{status} in {took_ms:.0f} ms")
    status = raw(bridge, long, {})[0]
    report.check("the same, unsigned: refused", status in (401, 403), status)
    padded = long + b" " * (LONGEST - len(long))
    status, took_ms = signed(bridge, padded)
    report.check("the longest that is taken, signed: 200", status == 200, f"{status} in {took_ms:.0f} ms")
    status = signed(bridge, padded + b" ")[0]
    report.check("one byte more: 413", status == 413, status)
    for what, body in (
        ("arrays in arrays", b"[" * DEEP + b"]" * DEEP),
        ("objects in objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
        ("arrays without end", b"[" * DEEP),
        ("no JSON", b"\xff\x00" * 500),
    ):
        status, took_ms = signed(bridge, body)
        soon = status in (200, 400) and took_ms < SOON_MS
        report.check(f"{what}, signed: answered at once", soon, f"{status} in {took_ms:.0f} ms")
    deep = json.dumps(meta.text("words"))[:-1] + ',"x":' + "[" * DEEP + "]" * DEEP + "}"
    body = b'{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[' + deep.encode() + b"]}]}"
    status, took_ms = signed(bridge, body)
    soon = status in (200, 400) and took_ms < SOON_MS
    report.check("a message with a deep field: answered at once", soon, f"{status} in {took_ms:.0f} ms")


def a_crowd_of_long_bodies(report, bridge):
    """Many announce the longest body at once, and send nothing of it."""
    head = f"POST {meta.PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {LONGEST}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        sockets = [connected(stack, bridge) for _ in range(CROWD)]
        for one in sockets:
            one.sendall(head)
        time.sleep(0.3)
        replies = [reply for reply in (read_now(one) for one in sockets) if reply]
        busy = [reply for reply in replies if reply.startswith("HTTP/1.1 503") and "\nretry-after:" in reply.lower()]
        report.check(
            "of twenty long bodies at once some wait, the rest are told to come again",
            0 < len(busy) < CROWD and len(busy) == len(replies),
            f"{len(busy)} told so",
        )
        status = signed(bridge, meta.webhook(meta.text("short")))[0]
        report.check("an ordinary webhook passes all the same", status == 200, status)
    time.sleep(0.2)
    status = signed(bridge, b" " * LONGEST)[0]
    report.check("when they have gone there is room again", status in (200, 400), status)


async def slow_senders_beside_a_call(report, bridge, caller):
    """A byte a second, of a head or of a body, several at once."""
    gaps = await gaps_during(caller, asyncio.to_thread(slow_senders, report, bridge))
    report.check("the call goes on beside slow senders", gaps.max() < GAP_SEC, f"longest gap {said(gaps)}")


def slow_senders(report, bridge):
    head = f"POST {meta.PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
    body = head + b"Content-Length: 2000\r\n" + meta.SIGNATURE.encode() + b": sha256=" + b"0" * 64 + b"\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow = [(HEAD_SEC, connected(stack, bridge), head) for _ in range(SLOW)]
        slow += [(BODY_SEC, connected(stack, bridge), body) for _ in range(SLOW)]
        begun, ended = time.monotonic(), {}
        for _, one, start in slow:
            one.sendall(start)
        while len(ended) < len(slow) and time.monotonic() - begun < BODY_SEC + 3:
            for _, one, _ in slow:
                if one not in ended and (reply := read_now(one)):
                    ended[one] = (time.monotonic() - begun, reply)
                if one not in ended:
                    with contextlib.suppress(OSError):
                        one.sendall(b"x")
            time.sleep(1)
    for kind, limit_sec in (("heads", HEAD_SEC), ("bodies", BODY_SEC)):
        theirs = [ended.get(one, (None, "")) for limit, one, _ in slow if limit == limit_sec]
        told = [at for at, reply in theirs if reply.startswith("HTTP/1.1 408")]
        in_time = all(limit_sec - 1 <= at <= limit_sec + 3 for at in told)
        words = theirs[0][1].split("\r\n\r\n")[-1]
        report.check(f"slow {kind} are told so with 408, in time", len(told) == SLOW and in_time, words)


async def the_caller_hangs_up(report, bridge, graph, caller):
    status = (await asyncio.to_thread(signed, bridge, meta.webhook(meta.terminate(caller.call_id))))[0]
    until, session = time.monotonic() + 5, {}
    while time.monotonic() < until and session.get("state") != "ended":
        await asyncio.sleep(0.05)
        session = (await asyncio.to_thread(bridge.session, caller.call_id))[1]
    reason = {key: session.get(key) for key in ("state", "closeReason")}
    report.check("Meta's terminate ends the call", status == 200 and session.get("state") == "ended", reason)
    report.check("and is not answered with one of ours", not graph.of("terminate"))
    report.check("no call is left", (await asyncio.to_thread(bridge.live_calls))[0] == 0)


async def the_deployed_webhook(report, bridge):
    """The edge function that takes the webhook elsewhere: its requests in its order, by the `fetch` that it has."""
    async with Caller() as caller:
        stop = {"callId": caller.call_id}
        start = {
            "callId": caller.call_id,
            "sdpOffer": await caller.offer(),
            "from": meta.CALLER,
            "config": {"voice": "alloy", "instructions": "Answer in one sentence.", "model": "gpt-4o-realtime-preview"},
        }
        reply = await asyncio.to_thread(fetched, bridge, "/api/sessions", start)
        good = reply["status"] == 200 and reply["body"]["success"] and reply["body"]["callId"] == caller.call_id
        report.check("beside the built-in webhook the deployed one's POST works as before", good, reply["status"])
        await caller.apply(reply["body"]["sdpAnswer"])  # at pre_accept; accept follows a second later
        await asyncio.wait_for(caller.connected.wait(), 10)
        await asyncio.sleep(1)
        report.check("its caller hears the bridge", len(caller.packets) > 20, len(caller.packets))
        stops = [await asyncio.to_thread(fetched, bridge, "/bridge/stop", stop) for _ in range(2)]
        report.check(
            "its POST /bridge/stop hangs up, and again is 200",
            [reply["status"] for reply in stops] == [200, 200] and stops[0]["body"]["success"] is True,
        )
        await asyncio.wait_for(caller.closed.wait(), 5)
        gone = await asyncio.to_thread(fetched, bridge, server.session_path(caller.call_id), None, "DELETE")
        report.check("a late DELETE is 200 too", gone["status"] == 200, gone["body"])
    report.check("no call is left", (await asyncio.to_thread(bridge.live_calls))[0] == 0)


def fetched(bridge, path, body, method="POST"):
    """One request by Node's fetch: status and body."""
    program = """
const [url, method] = process.argv.slice(1), body = require('fs').readFileSync(0, 'utf8') || undefined;
fetch(url, { method, body, headers: { 'Content-Type': 'application/json' } })
  .then(async answer => console.log(JSON.stringify({ status: answer.status, body: await answer.json() })));
"""
    text = json.dumps(body).encode() if body is not None else b""
    return json.loads(command("node", "-e", program, bridge.url + path, method, stdin=text))


async def gaps_during(caller, work):
    """The gaps between the caller's packets while something is done, in seconds."""
    before = len(caller.packets)
    begun = time.monotonic()
    await work
    times = [begun] + [packet.at for packet in caller.packets[before:]] + [time.monotonic()]
    return numpy.diff(times)


def said(gaps):
    return f"{gaps.max() * 1000:.0f} ms"


def signed(bridge, body):
    """Posts a body with its signature: status and milliseconds."""
    begun = time.monotonic()
    status = raw(bridge, body, {meta.SIGNATURE: meta.signature(body), "Content-Type": "application/json"})[0]
    return status, (time.monotonic() - begun) * 1000


def raw(bridge, body, headers):
    """Posts bytes: status and text."""
    connection = bridge.connect()
    with contextlib.closing(connection):
        connection.request("POST", meta.PATH, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")


def posted(bridge, path, value):
    """Posts a file by curl, with this signature or none: the answer and its status."""
    header = [] if value is None else ["-H", f"{meta.SIGNATURE};" if value == "" else f"{meta.SIGNATURE}: {value}"]
    json_type = ["-H", "Content-Type: application/json"]
    return curl(*header, *json_type, "--data-binary", f"@{path}", bridge.url + meta.PATH)


def refused(reply):
    return reply.endswith((" 401", " 403"))


def curl(*words):
    return command("curl", "--silent", "--max-time", "10", "-w", " %{http_code}", *words)


def command(*words, stdin=None):
    done = subprocess.run(words, check=False, input=stdin, capture_output=True, timeout=30, env=dict(os.environ))
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed: {done.stderr.decode(errors='replace')[-500:]}")
    return done.stdout.decode()


def connected(stack, bridge):
    one = stack.enter_context(socket.create_connection(("127.0.0.1", bridge.port), timeout=5))
    one.setblocking(False)
    return one


def read_now(one):
    """What has come, without waiting."""
    parts = []
    with contextlib.suppress(OSError):
        while part := one.recv(65536):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")
