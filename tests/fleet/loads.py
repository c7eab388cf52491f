"""`voice-media-bridge load` through the balancer: callers with media, and what they heard."""

import contextlib
import json
import subprocess

from node import BINARY, EVIDENCE, TOKEN


class Load:
    """A run under way. Its calls come within the first seconds, stay `duration_sec`, and are hung up."""

    def __init__(self, name, balancer, calls, duration_sec, *flags):
        self.name, self.calls = name, calls
        self._limit_sec = duration_sec + 60
        self._json = EVIDENCE / f"load-{name}.json"
        self._json.unlink(missing_ok=True)
        words = [BINARY, "load", "--url", f"http://127.0.0.1:{balancer.port}", "--token", TOKEN]
        words += ["--calls", calls, "--rate", 20, "--duration", duration_sec, "--speech", "0.4", "--json", self._json]
        with open(EVIDENCE / f"load-{name}.log", "wb") as log:
            self.process = subprocess.Popen([str(word) for word in (*words, *flags)], stdout=log, stderr=log)

    def report(self):
        """Waits for its end."""
        self.process.wait(self._limit_sec)
        return json.loads(self._json.read_text())

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def load(*words):
    """A load that is put away whatever happens."""
    running = Load(*words)
    try:
        yield running
    finally:
        running.stop()


def heard(report):
    """A report in a line."""
    calls, packets = report["calls"], report["packets"]
    return (
        f"{calls['connected']} of {calls['asked']} connected, {calls['refused']} refused, "
        f"{calls['endedByServer']} cut, {calls['hangupsFailed']} hang-ups failed, "
        f"{packets['received']} packets heard, {packets['lost']} lost"
    )


def is_perfect(report, calls):
    """Every call came up, nobody heard a gap, and every hang-up reached the call."""
    figures, packets = report["calls"], report["packets"]
    wrong = [figures[word] for word in ("refused", "neverConnected", "endedByServer", "hangupsFailed")]
    return (
        figures["connected"] == calls
        and not any(wrong)
        and packets["received"] > 0
        and packets["lost"] == packets["undecryptable"] == 0
    )
