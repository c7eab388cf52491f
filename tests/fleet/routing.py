"""Every request of a call reaches its node, however the id is written."""

import json
import subprocess
import time

from calls import Client, call_id, in_json, log_id, offer
from node import TOKEN

CALLS = 96
# The longest body that a bridge takes (http.rs, BODY_BYTES_MAX).
BODY_BYTES_MAX = 128 * 1024


def run(report, fleet):
    clients = [Client(fleet.balancer), Client(fleet.balancer, is_token_in_path=True)]
    identities = [call_id(f"routing {number}") for number in range(CALLS)]
    marks = [sum(mark in identity for identity in identities) for mark in "=/+"]
    started = time.monotonic()
    answers, asked, homes = [], 0, {}
    for number, identity in enumerate(identities):
        statuses, count = one_call(clients, identity, number)
        answers += statuses
        asked += count
        homes[identity] = [node.name for node in fleet.nodes if node.knows(identity)]
    wrong = [words for words in answers if words[1] != 200]
    report.check("every request about a call is answered by it", not wrong, wrong[:3] or f"{len(answers)} of 200")
    report.check(
        "each call is on one node", all(len(home) == 1 for home in homes.values()),
        ", ".join(f"{node.name} {sum(home == [node.name] for home in homes.values())}" for node in fleet.nodes),
    )
    by_log = {log_id(identity): home[0] for identity, home in homes.items() if home}
    lines = [line for line in fleet.balancer.lines(started) if line.call in by_log]
    misrouted = [line for line in lines if line.server != by_log[line.call]]
    report.check(
        "no request is misrouted", len(lines) == asked and not misrouted,
        f"{len(misrouted)} of {len(lines)}; ids with = {marks[0]}, / {marks[1]}, + {marks[2]}, written in 4 ways in "
        "paths and 4 in JSON",
    )
    fleet.figure("requests misrouted", f"{len(misrouted)} of {len(lines)} ({CALLS} calls, ids written in 8 ways)")
    the_edges(report, fleet)
    the_log_names_nobody(report, fleet, identities)


def one_call(clients, identity, number):
    """A call's whole life. Returns what was answered, by request, and how many requests there were."""
    client, other, sdp = clients[number % 2], clients[(number + 1) % 2], offer()
    create, again = (client.post, other.put) if number % 4 < 2 else (client.put, other.post)
    hang_up = [client.hang_up, other.stop][number % 3 % 2]
    first, repeated = create(identity, sdp, way=number), again(identity, sdp, way=number + 1)
    asked = [
        ("create", first[0]),
        ("create again", repeated[0] if first[1].get("sdpAnswer") == repeated[1].get("sdpAnswer") else "another answer"),
        ("get", client.get(identity, way=number)[0]),
        ("get", other.get(identity, way=number + 2)[0]),
        ("latency", client.get(identity, way=number + 1, below="/latency")[0]),
        ("hang up", hang_up(identity, way=number + 3)[0]),
    ]
    state = other.get(identity, way=number + 3)[1]
    asked.append(("it is over", 200 if state.get("closeReason") == "hangup" else f"still {state}"))
    return asked, len(asked)


def the_edges(report, fleet):
    """What real clients do that is not plain: curl's `Expect`, chunks, the longest body."""
    identity = call_id("an edge")
    body = f'{{"sdpOffer":{json.dumps(offer())},"callId":{in_json(identity, 2)}}}'
    padded = "{" + " " * (BODY_BYTES_MAX - len(body)) + body[1:]
    for words, flags in [
        ("curl with Expect: 100-continue and a body of 128 KiB", ["-H", "Expect: 100-continue"]),
        ("the same in chunks", ["-H", "Transfer-Encoding: chunked"]),
    ]:
        url = f"http://127.0.0.1:{fleet.balancer.port}/api/sessions"
        curl = ["curl", "-sS", "-m", "20", "-H", f"Authorization: Bearer {TOKEN}", *flags, "--data-binary", "@-", url]
        done = subprocess.run(curl, input=padded.encode(), capture_output=True)
        call = fleet.balancer.lines()[-1].call
        is_answered = done.returncode == 0 and b'"sdpAnswer"' in done.stdout
        report.check(words, is_answered and call == log_id(identity), done.stdout[:60] if not is_answered else call)
    client = Client(fleet.balancer)
    client.hang_up(identity)
    status, answer = client.ask("POST", "/api/sessions", b" " * (BODY_BYTES_MAX + 1))
    report.check("a longer body is the bridge's to refuse", (status, answer["code"]) == (413, "body_too_large"), status)
    status, answer = client.ask("POST", "/api/drain")
    refused = [status, *(client.ask("GET", path)[0] for path in ("/metrics", "/api/sessions", "/"))]
    report.check("what is one node's own is not passed on", refused == [404] * 4, answer["error"])
    status, answer = client.get("never seen")
    report.check("an unknown call is 404, as a bridge says it", (status, answer["code"]) == (404, "not_found"), status)


def the_log_names_nobody(report, fleet, identities):
    """Ids and tokens travel in paths; a log is kept for long and read by many."""
    text = fleet.balancer.log()
    # The text between the encodings' specials is the same in most of them.
    words = [TOKEN, *(max(identity.removeprefix("wacid.").replace("+", "/").split("/"), key=len) for identity in identities)]
    shown = [word for word in words if word.rstrip("=") in text]
    report.check("no call id and no token is in the balancer's log", text and not shown, f"{text.count(chr(10))} lines")
    table = fleet.balancer.command("show table bridges")
    report.check("nor in its table", not any(word.rstrip("=") in table for word in words), f"{table.count('key=')} keys")
