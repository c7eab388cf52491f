"""Meta's webhook through the balancer: each event of a call reaches its node, however often and to whom it comes."""

import time

import graph
from calls import call_id, offer
from node import ask, session_path

CALLS = 60


def run(report, fleet):
    port = fleet.balancer.port
    query = f"?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={graph.VERIFY_TOKEN}"
    status, answer, _ = ask(port, "GET", graph.PATH + query, token=None)
    report.check("the webhook is verified by any node", (status, answer) == (200, "1158201444"), answer)

    identities, started = [call_id(f"webhook {number}") for number in range(CALLS)], time.monotonic()
    said = [deliver(port, graph.connect(identity, offer())) for identity in identities for _ in range(3)]
    report.check("every delivery is taken, without a token", set(said) == {200}, f"{len(said)} of {3 * CALLS}")
    fleet.balancer.wait(lambda: all(graph.asked(identity) for identity in identities), "Meta is asked for every call")
    homes = {identity: [node for node in fleet.nodes if node.knows(identity)] for identity in identities}
    report.check(
        "each call is on one node, whatever came again", all(len(home) == 1 for home in homes.values()),
        ", ".join(f"{node.name} {sum(home == [node] for home in homes.values())}" for node in fleet.nodes),
    )
    twice = [identity for identity in identities if graph.asked(identity).count("pre_accept") != 1]
    report.check("and is asked for once", not twice, f"{len(twice)} of {CALLS} twice")

    said = {deliver(port, graph.terminate(identity)) for identity in identities}
    fleet.balancer.wait(lambda: not any(node.live_calls() for node in fleet.nodes), "every call has ended")
    reasons = {homes[identity][0].request("GET", session_path(identity))[1]["closeReason"] for identity in identities}
    report.check("each end reaches its node", (said, reasons) == ({200}, {"terminated"}), f"{said} {reasons}")
    ended = [identity for identity in identities if {"reject", "terminate"} & set(graph.asked(identity))]
    report.check("and Meta is not told what it has said itself", not ended, f"{len(ended)} of {CALLS}")
    routes = {line.route for line in fleet.balancer.lines(started)}
    report.check("the log says which were webhooks", "webhook" in routes, routes)

    body, _ = graph.webhook(graph.connect("wacid.forged", offer()))
    status = ask(port, "POST", graph.PATH, body, {"X-Hub-Signature-256": "sha256=" + "0" * 64}, token=None)[0]
    report.check("a forged one is refused", status == 401 and not graph.asked("wacid.forged"), status)


def deliver(port, event):
    body, headers = graph.webhook(event)
    return ask(port, "POST", graph.PATH, body, headers, token=None)[0]
