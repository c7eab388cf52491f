"""Runs the parts one after another and counts their lines.

The last line is `N passed, N failed`; the exit code is 1 when anything failed.
"""

import importlib
import pathlib
import signal
import sys
import time
import traceback

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "interop"))

from report import Counted  # noqa: E402  (the interop suite's)

PARTS = ["static", "templates", "machines"]
LIMIT_SEC = 600  # half of it is enough where nothing else runs


def main(words):
    unknown = set(words) - set(PARTS)
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: sys.exit("its time is over"))
    signal.alarm(LIMIT_SEC)
    report = Counted()
    for name in words or PARTS:
        part, started = importlib.import_module(name), time.monotonic()
        print(f"\n== {name}: {part.__doc__.splitlines()[0]}", flush=True)
        try:
            part.run(report)
        except Exception:  # it is one failed line, and the other parts still run
            report.check("this part runs to its end", False, traceback.format_exc(limit=-4).strip())
        print(f"      {time.monotonic() - started:.1f} s", flush=True)
    print(f"\n{report.passed} passed, {report.failed} failed", flush=True)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
