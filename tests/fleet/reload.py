"""The balancer is reloaded: it still knows where each call is, and no request fails."""

import collections
import threading
import time

from calls import Client, call_id

CALLS = 60
# HAProxy learns from its predecessor for so long after its own start, and has nothing to hand on before that is over.
LEARNING_SEC = 6


def run(report, fleet):
    first, *others = fleet.nodes
    identities = [call_id(f"reload {number}") for number in range(CALLS)]
    client = Client(fleet.balancer)
    # Made while one node takes none: once it does again, a third of these ids hash to it, so only the table knows better.
    with fleet.only(others):
        statuses = collections.Counter(client.post(identity)[0] for identity in identities)
    report.check("calls are made while one node takes none", statuses == {200: CALLS}, dict(statuses))
    bound = fleet.balancer.bound_calls()
    asked, over = [], threading.Event()

    def keep_asking():
        while not over.is_set():
            for identity in identities[:10]:
                at = time.monotonic()
                try:
                    asked.append((at, Client(fleet.balancer).get(identity)[0]))
                except OSError as error:
                    asked.append((at, repr(error)))

    fleet.balancer.wait(lambda: fleet.balancer.uptime_sec() > LEARNING_SEC, "it has been up long enough to hand over")
    thread = threading.Thread(target=keep_asking, daemon=True)
    thread.start()
    try:
        fleet.balancer.reload()
        learnt_sec = fleet.balancer.wait(lambda: fleet.balancer.bound_calls() >= bound, "the table is complete again")
        learnt = time.monotonic()
        after = collections.Counter(Client(fleet.balancer).get(identity)[0] for identity in identities)
    finally:
        over.set()
        thread.join()
    report.check("each call is found where it is", after == {200: CALLS}, dict(after))
    late = [said for at, said in asked if said != 200 and at > learnt]
    early = [said for at, said in asked if said != 200 and at <= learnt]
    report.check("no request failed once the table was there", not late, late[:2] or f"{len(asked)} requests")
    report.check("a connection that was kept over the reload still works", client.get(identities[0])[0] == 200)
    for identity in identities:
        client.hang_up(identity)
    fleet.figure("reload: the table is back", f"{learnt_sec * 1000:.0f} ms after the new process answers, {bound} entries")
    fleet.figure("reload: requests failed", f"{len(early)} before that, {len(late)} after, of {len(asked)}")
