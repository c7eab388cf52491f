"""The load generator through the balancer, by POST and by PUT: all connect, and nobody hears a gap."""

from loads import heard, is_perfect, load

CALLS = 24
HOLD_SEC = 5


def run(report, fleet):
    for method, flags in [("POST", []), ("PUT", ["--put"])]:
        with load(method.lower(), fleet.balancer, CALLS, HOLD_SEC, *flags) as callers:
            found = callers.report()
        report.check(f"calls by {method}", is_perfect(found, CALLS), heard(found))
        p99_ms = found["calls"]["answer"]["p99Us"] / 1000 if found["calls"]["answer"] else None
        fleet.figure(f"load by {method}", f"{heard(found)}; answers {p99_ms} ms (p99)")
