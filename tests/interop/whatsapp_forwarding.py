"""The bridge stands in front of a bot that we did not write: `pywa`, which checks Meta's signature itself.

What is not a call arrives there as it came, while the bot is away and comes back; calls stay with the bridge.
"""

import asyncio
import collections
import hashlib
import json
import sys
import time

import bridge as server
import meta
from whatsapp_webhook import raw, signed

LIMIT_SEC = 90
PROGRAM = server.pathlib.Path(__file__).with_name("whatsapp_receiver.py")
PASS_SEC = 30  # a bot that is back is tried again within a backoff of seconds
SENDERS = [f"2507880000{number:02}" for number in range(5)]
EACH = 8  # messages of each sender
AWAY_SEC = 3


def run(report):
    asyncio.run(everything(report))


async def everything(report):
    port = server.free_port()
    seen = server.EVIDENCE / "whatsapp-receiver.jsonl"
    seen.unlink(missing_ok=True)
    seen.touch()
    async with meta.Graph() as graph:
        forward = {"BRIDGE_WEBHOOK_FORWARD_URL": f"http://127.0.0.1:{port}/webhook"}
        settings = meta.settings(graph.url, BRIDGE_AGENT="builtin", **forward)
        with server.running("whatsapp_forwarding", **settings) as bridge:
            await asyncio.to_thread(with_a_bot, report, bridge, port, seen)


def with_a_bot(report, bridge, port, seen):
    sent = Sent(bridge)
    with bot(port, seen):
        report.check("a message is taken", sent.message(SENDERS[0], "Grüße, 你好 / 5 > 3 \u2028") == 200)
        calls = [meta.call_change("connect", "wacid.strange", session={"sdp_type": "offer", "sdp": "v=0\r\n"})]
        calls[0]["value"]["metadata"]["phone_number_id"] = "999"
        report.check(
            "a message and a call in one are taken", sent.webhook(meta.text("both", SENDERS[1]), *calls) == 200
        )
        report.check("so is a field that no bridge knows", sent.webhook({"field": "flows", "value": {"x": [1]}}) == 200)
        lines = wait_for(seen, lambda lines: len(arrived(lines)) >= 3 and len(handled(lines)) >= 2)
        report.check(
            # Those of different people do not wait for each other.
            "all arrive, byte for byte", sorted(arrived(lines)) == sorted(sent.all),
            f"{len(arrived(lines))} of {len(sent.all)}"
        )
        report.check("with Meta's signature, which the bot has checked", statuses(lines) == {200}, statuses(lines))
        said = [line["handled"] for line in handled(lines)]
        report.check("the bot reads the words as they were written", "Grüße, 你好 / 5 > 3 \u2028" in said, said)

        before = len(arrived(read(seen)))
        call = meta.webhook(meta.terminate("wacid.nobody", SENDERS[0]))
        status = signed(bridge, call)[0]
        forged = raw(bridge, meta.webhook(meta.text("forged")), {meta.SIGNATURE: "sha256=" + "0" * 64})[0]
        time.sleep(1)
        report.check("a call alone is not passed on", status == 200 and len(arrived(read(seen))) == before)
        report.check("nor what is not signed by Meta", forged in (401, 403), forged)

    begun = time.monotonic()
    for number in range(EACH // 2):
        for sender in SENDERS:
            sent.message(sender, f"away {number}", number)
    took_ms = (time.monotonic() - begun) * 1000
    report.check("while the bot is away Meta has its 200 all the same", sent.refused == 0, f"{took_ms:.0f} ms for all")
    time.sleep(AWAY_SEC)
    with bot(port, seen):
        for number in range(EACH // 2, EACH):
            for sender in SENDERS:
                sent.message(sender, f"back {number}", number)
        total = len(sent.all)
        begun = time.monotonic()
        lines = wait_for(seen, lambda lines: len(set(arrived(lines))) >= total)
        took = f"{time.monotonic() - begun:.1f} s after it is back"
        time.sleep(0.5)
        lines = read(seen)
        came = arrived(lines)
        report.check("when it is back nothing is lost", set(came) == set(sent.all), f"{len(came)} of {total}, {took}")
        report.check("and nothing comes twice", len(came) == len(set(came)), len(came) - len(set(came)))
        for_each = collections.defaultdict(list)
        for digest in came:
            for_each[sent.senders.get(digest)].append(digest)
        in_order = all(for_each[sender] == sent.of(sender) for sender in SENDERS)
        report.check("each sender's messages come in their order", in_order)
        report.check("the bot has refused none", statuses(lines) == {200}, statuses(lines))


class Sent:
    """What was posted to the bridge, in order."""

    def __init__(self, bridge):
        self.bridge, self.all, self.senders, self.refused = bridge, [], {}, 0

    def message(self, sender, words, number=0):
        status = self.webhook(meta.text(words, sender, number))
        self.senders[self.all[-1]] = sender
        return status

    def webhook(self, *changes):
        body = meta.webhook(*changes)
        status = signed(self.bridge, body)[0]
        self.refused += status != 200
        self.all.append(hashlib.sha256(body).hexdigest())
        return status

    def of(self, sender):
        return [digest for digest in self.all if self.senders.get(digest) == sender]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def arrived(lines):
    """Digests of the bodies that the bot has answered, in the order of its answers."""
    return [line["sha256"] for line in lines if line.get("status") == 200]


def handled(lines):
    return [line for line in lines if "handled" in line]


def statuses(lines):
    return {line["status"] for line in lines if "status" in line}


def wait_for(path, enough):
    """What the bot has noted, once it is enough or the time is over."""
    until = time.monotonic() + PASS_SEC
    while not enough(lines := read(path)) and time.monotonic() < until:
        time.sleep(0.1)
    return lines


def bot(port, seen):
    """Started, awaited, ended."""
    command = [sys.executable, PROGRAM, str(port), str(seen)]
    return server.program("the bot", command, "whatsapp-receiver.log", port, "/nothing")
