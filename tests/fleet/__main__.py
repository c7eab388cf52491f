"""Starts the fleet, runs the scenarios on it one after another, and counts their lines.

The last line is `N passed, N failed`; the exit code is 1 when anything failed.
"""

import contextlib
import importlib
import signal
import sys
import time
import traceback

import calls  # noqa: F401  (makes the interop suite's modules importable)
from report import Counted

from balancer import Balancer
from node import Node, session_path

SCENARIOS = ["routing", "webhooks", "distribution", "media", "reload", "drain", "death"]
# Below the ports that the kernel gives out by itself, and enough that a port rests before it is used again.
MEDIA_PORTS = {"a": "20000-22999", "b": "23000-25999", "c": "26000-28999"}
LIMIT_SEC = 240


class Fleet:
    """Three nodes behind a balancer, and what was measured on them."""

    def __init__(self):
        self.nodes = [Node(name, media) for name, media in MEDIA_PORTS.items()]
        self.balancer = Balancer(self.nodes)
        self.figures = []

    def figure(self, what, words):
        """A line for the table at the end."""
        self.figures.append((what, words))

    @contextlib.contextmanager
    def only(self, nodes):
        """Lets these nodes alone take new calls, as an operator does it: with agent-check off, which would undo it."""
        self.open_all(nodes)
        for node in self.nodes:
            if node not in nodes:
                self.balancer.command(f"disable agent bridges/{node.name}")
                self.balancer.command(f"set server bridges/{node.name} state drain")
        try:
            yield
        finally:
            self.open_all()

    def open_all(self, nodes=None):
        """Lets all take new calls again."""
        for node in nodes or self.nodes:
            self.balancer.command(f"set server bridges/{node.name} state ready")
            self.balancer.command(f"enable agent bridges/{node.name}")

    def hang_up_all(self):
        """So that no scenario meets the calls of another."""
        for node in self.nodes:
            for call in node.request("GET", "/api/sessions")[1]["sessions"]:
                node.request("DELETE", session_path(call["callId"]))

    def stop(self):
        for node in self.nodes:
            node.stop()
        self.balancer.stop()


def main(words):
    unknown = set(words) - set(SCENARIOS)
    if unknown:
        sys.exit(f"no such scenario: {', '.join(sorted(unknown))}; there are: {', '.join(SCENARIOS)}")
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: sys.exit("its time is over"))
    signal.alarm(LIMIT_SEC)
    report, fleet = Counted(), Fleet()
    try:
        for node in fleet.nodes:
            node.start()
        code, said = fleet.balancer.check()
        report.check("haproxy -c has nothing to say", code == 0 and said == "Configuration file is valid", said)
        fleet.balancer.start()
        for name in words or SCENARIOS:
            run_one(report, fleet, name)
    finally:
        fleet.stop()
    print()
    width = max((len(what) for what, _ in fleet.figures), default=0)
    for what, figure in fleet.figures:
        print(f"| {what:{width}} | {figure} |")
    print(f"\n{report.passed} passed, {report.failed} failed", flush=True)
    return 1 if report.failed else 0


def run_one(report, fleet, name):
    """A scenario; an exception is one failed line, and the others still run."""
    scenario, started = importlib.import_module(name), time.monotonic()
    print(f"\n== {name}: {scenario.__doc__.splitlines()[0]}", flush=True)
    try:
        scenario.run(report, fleet)
        fleet.hang_up_all()
    except Exception:
        report.check("the scenario runs to its end", False, traceback.format_exc(limit=-4).strip())
    print(f"      {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
