"""Runs the scenarios one after another, each in a process group of its own, and counts their lines.

The last line is `N passed, N failed`; the exit code is 1 when anything failed or nothing ran.
"""

import contextlib
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import traceback

import report

HERE = pathlib.Path(__file__).resolve().parent
SCENARIOS = [
    "http_clients",
    "tls_clients",
    "whatsapp_call",
    "whatsapp_webhook",
    "whatsapp_forwarding",
    "whatsapp_simulator",
    "latency",
    "intelligibility",
    "model_events",
    "browser",
    "firefox",
    "third_party",
]
ENDING_SEC = 5  # what a scenario has to put its own servers away after SIGTERM


def run_one(name):
    """In the child: one scenario; an exception is one failed line."""
    # SIGTERM unwinds the stack, so that every `with` puts away what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("its time is over"))
    found = report.Report()
    try:
        importlib.import_module(name).run(found)
    except Exception:  # whatever it was, it is one failed line and the others still run
        found.check("the scenario runs to its end", False, traceback.format_exc(limit=-4).strip())


def run_apart(name):
    """In the parent: a scenario as a child, bounded in time; returns its counts."""
    limit_sec = importlib.import_module(name).LIMIT_SEC
    print(f"\n== {name}: {importlib.import_module(name).__doc__.splitlines()[0]}", flush=True)
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, str(HERE), "--scenario", name],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    late = threading.Event()
    timer = threading.Timer(limit_sec, lambda: (late.set(), child.terminate()))
    killer = threading.Timer(limit_sec + ENDING_SEC, lambda: end_group(child))
    passed = failed = 0
    try:
        timer.start()
        killer.start()
        for line in child.stdout:
            print(line, end="", flush=True)
            passed += line.startswith(report.PASS)
            failed += line.startswith(report.FAIL)
        code = child.wait()
    finally:
        timer.cancel()
        killer.cancel()
        end_group(child)
    if late.is_set() or code != 0 or passed + failed == 0:
        failed += 1
        why = f"ended after its limit of {limit_sec} s" if late.is_set() else f"exit code {code}"
        print(f"{report.FAIL}  the scenario ends by itself, in time  [{why}]", flush=True)
    print(f"      {time.monotonic() - started:.1f} s", flush=True)
    return passed, failed


def end_group(child):
    """Whatever is left of a scenario's own process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def main(words):
    if words[:1] == ["--scenario"]:
        return run_one(words[1])
    unknown = set(words) - set(SCENARIOS)
    if unknown:
        sys.exit(f"no such scenario: {', '.join(sorted(unknown))}; there are: {', '.join(SCENARIOS)}")
    counts = [run_apart(name) for name in words or SCENARIOS]
    passed, failed = (sum(column) for column in zip(*counts))
    print(f"\n{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
