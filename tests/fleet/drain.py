"""A node drains: its calls go on, new ones go elsewhere, and it ends with its last call."""

import time

from calls import Client
from loads import heard, is_perfect, load
from stream import NewCalls

CALLS = 30
HOLD_SEC = 16
ELSEWHERE_SEC_MAX = 1.0


def run(report, fleet):
    leaving, client = fleet.nodes[0], Client(fleet.balancer)
    with load("drain", fleet.balancer, CALLS, HOLD_SEC) as callers:
        fleet.balancer.wait(lambda: sum(node.live_calls() for node in fleet.nodes) == CALLS, "all calls are up")
        mine = [call["callId"] for call in leaving.request("GET", "/api/sessions")[1]["sessions"]]
        with NewCalls(fleet.balancer, "drain") as stream:
            time.sleep(0.5)
            started = time.monotonic()
            leaving.drain()
            seen_sec = fleet.balancer.wait(lambda: fleet.balancer.state(leaving)["is_draining"], "drain is seen")
            asked = [client.get(identity)[0] for identity in mine for _ in range(3)]
            time.sleep(1)
        asked += [client.get(identity)[0] for identity in mine]
        lines = fleet.balancer.lines(started)
        last_sec = max(fleet.balancer.taken(leaving, started), default=started) - started
        report.check("the node has calls to drain", len(mine) > 2, f"{len(mine)} of {CALLS}")
        report.check(
            f"its last new call came within {ELSEWHERE_SEC_MAX:.0f} s", last_sec <= ELSEWHERE_SEC_MAX,
            f"{last_sec * 1000:.0f} ms after SIGTERM; agent-check was read after {seen_sec * 1000:.0f} ms",
        )
        report.check("no new call failed meanwhile", not stream.failed(), stream.failed()[:3] or f"{len(stream.answers)} taken")
        about = [line for line in lines if line.route == "call" and line.method == "GET"]
        elsewhere = [line for line in about if line.server != leaving.name]
        report.check(
            "requests about its calls still reach it", set(asked) == {200} and not elsewhere, f"{len(asked)} of 200"
        )
        found = callers.report()
        report.check("nobody who was talking noticed", is_perfect(found, CALLS), heard(found))
        code = leaving.process.wait(10)
        report.check("with its last call it ends by itself, and well", code == 0, f"exit code {code}")
    fleet.figure("drain: last new call on the node", f"{last_sec * 1000:.0f} ms after SIGTERM")
    fleet.figure("drain: HAProxy sees it", f"{seen_sec * 1000:.0f} ms")
    fleet.figure("drain: new calls failed", f"{len(stream.failed())} of {len(stream.answers)}")
    fleet.figure("drain: calls under way", heard(found))
    back(report, fleet, leaving)


def back(report, fleet, node):
    """A node that was started again takes calls again, after a drain as after a crash."""
    node.start()
    started = time.monotonic()
    with NewCalls(fleet.balancer, f"back {node.name} {started}") as stream:
        fleet.balancer.wait(lambda: fleet.balancer.taken(node, started), "it takes new calls again")
    took_sec = min(fleet.balancer.taken(node, started)) - started
    report.check("started again, it takes new calls", not stream.failed(), f"{took_sec * 1000:.0f} ms after it was ready")
    fleet.figure(f"{node.name} back: first new call", f"{took_sec * 1000:.0f} ms after /ready")
