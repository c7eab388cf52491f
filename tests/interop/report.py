"""One line per check, and the count at the end.

A scenario is a module with `LIMIT_SEC` and `run(report)`. It promises to finish or be ended within its limit; a check
that fails is a line, an exception ends the scenario and is one failed line.
"""

PASS, FAIL, NOTE = "ok  ", "FAIL", "    "


class Report:
    """What one scenario found."""

    def check(self, sentence, holds, evidence=""):
        """One thing that must be true, with the figure that shows it."""
        print(f"{PASS if holds else FAIL}  {sentence}{_tail(evidence)}", flush=True)
        return bool(holds)

    def note(self, sentence, evidence=""):
        """A figure that nothing is demanded of."""
        print(f"{NOTE}  {sentence}{_tail(evidence)}", flush=True)


class Counted(Report):
    """The same, for suites that run in one process: counts what is said."""

    passed = failed = 0

    def check(self, sentence, holds, evidence=""):
        self.passed += bool(holds)
        self.failed += not holds
        return super().check(sentence, holds, evidence)


def _tail(evidence):
    return f"  [{evidence}]" if evidence != "" else ""
