"""New calls spread evenly over nodes that have the same room."""

import collections
import time

from calls import Client, call_id

# Each call falls on a node by its hash, so the share of one of three nodes has a standard deviation of sqrt(2/N) of itself:
# 2.1 % with 4500 calls, and a little more for the ring's own unevenness. 10 % is then beyond four of them. The ids are the
# same in every run.
CALLS = 4500
DEVIATION_MAX = 0.10


def run(report, fleet):
    client = Client(fleet.balancer)
    started = time.monotonic()
    statuses = collections.Counter()
    for number in range(CALLS):
        identity = call_id(f"distribution {number}")
        create = client.put if number % 2 else client.post
        statuses[create(identity)[0]] += 1
        statuses[client.hang_up(identity)[0]] += 1
    report.check("each is taken and hung up", statuses == {200: 2 * CALLS}, dict(statuses))
    lines = fleet.balancer.lines(started)
    taken = collections.Counter(line.server for line in lines if line.route == "create")
    shares = {node.name: taken[node.name] / CALLS for node in fleet.nodes}
    worst = max(abs(share * len(fleet.nodes) - 1) for share in shares.values())
    words = ", ".join(f"{name} {taken[name]} ({share:.1%})" for name, share in shares.items())
    report.check("the nodes' shares are within 10 % of each other's mean", worst <= DEVIATION_MAX, words)
    fleet.figure(f"distribution of {CALLS} new calls", f"{words}; at most {worst:.1%} off")
