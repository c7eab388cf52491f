"""A node is killed: calls on the others never notice, new calls go elsewhere, its own are answered for what they are."""

import time

from calls import Client
from drain import back
from loads import heard, is_perfect, load
from stream import NewCalls

CALLS = 20
DOOMED = 8
HOLD_SEC = 12
ELSEWHERE_SEC_MAX = 1.0


def run(report, fleet):
    *others, doomed = fleet.nodes
    client = Client(fleet.balancer)
    with fleet.only(others), load("survivors", fleet.balancer, CALLS, HOLD_SEC) as callers:
        fleet.balancer.wait(lambda: sum(node.live_calls() for node in others) == CALLS, "the others' calls are up")
        with fleet.only([doomed]), load("doomed", fleet.balancer, DOOMED, HOLD_SEC) as victims:
            fleet.balancer.wait(lambda: doomed.live_calls() == DOOMED, "the doomed node's calls are up")
            mine = [call["callId"] for call in doomed.request("GET", "/api/sessions")[1]["sessions"]]
            fleet.open_all()
            with NewCalls(fleet.balancer, "death") as stream:
                fleet.balancer.wait(lambda: fleet.balancer.taken(doomed, stream.started), "it takes new calls too")
                died = time.monotonic()
                doomed.kill()
                early = [client.get(identity) for identity in mine[:2]]
                fleet.balancer.wait(lambda: fleet.balancer.state(doomed)["operational"] == 0, "it is down")
                down_sec = time.monotonic() - died
                answers = [client.get(identity) for identity in mine] + [client.hang_up(mine[0])]
                time.sleep(0.5)
            longest_sec = stream.longest_sec(since=died)
            report.check(
                "no new call fails, not even before it is known to be dead", not stream.failed(),
                stream.failed()[:3] or f"{len(stream.answers)} taken, down within {down_sec * 1000:.0f} ms",
            )
            report.check(
                f"new calls go elsewhere within {ELSEWHERE_SEC_MAX:.0f} s", longest_sec <= ELSEWHERE_SEC_MAX,
                f"the longest answer took {longest_sec * 1000:.0f} ms",
            )
            gone = {(status, answer.get("code")) for status, answer in early + answers}
            report.check("requests for its calls are answered clearly", gone == {(404, "not_found")}, gone)
            again = client.post(mine[1])
            home = [node.name for node in others if node.knows(mine[1])]
            report.check("and the same id starts a call elsewhere", again[0] == 200 and len(home) == 1, home)
            client.hang_up(mine[1])
            victims.stop()
        found = callers.report()
    report.check("nobody on the other nodes noticed", is_perfect(found, CALLS), heard(found))
    fleet.figure("kill -9: the longest answer to a new call", f"{longest_sec * 1000:.0f} ms; down within {down_sec * 1000:.0f} ms")
    fleet.figure("kill -9: new calls failed", f"{len(stream.failed())} of {len(stream.answers)}")
    fleet.figure("kill -9: calls on the other nodes", heard(found))
    back(report, fleet, doomed)
