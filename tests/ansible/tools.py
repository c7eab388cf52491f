"""Where things are, and programs run in a bounded time."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAYBOOKS = ROOT / "ansible"
ROLES = sorted(path.name for path in (PLAYBOOKS / "roles").iterdir())
EVIDENCE = ROOT / "target" / "ansible"
CURRENT, OLDEST = EVIDENCE / "current" / "bin", EVIDENCE / "oldest" / "bin"
COMMAND_SEC = 240


def command(*words, folder=PLAYBOOKS, log=None, limit_sec=COMMAND_SEC, **environment):
    """Runs a program: exit code and all that it printed, which is kept where `log` names a file."""
    path = f"{CURRENT}:{os.environ['PATH']}:/usr/sbin"
    # Colours off, and no habits of whoever runs the tests.
    keep = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    words = [str(word) for word in words]
    plain = {"PATH": path, "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(EVIDENCE / "home")}
    try:
        done = subprocess.run(
            words, cwd=folder, env=keep | plain | environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=limit_sec,
        )
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, said = "none", (late.stdout or b"").decode(errors="replace") + f"\n(not within {limit_sec} s)"
    if log:
        (EVIDENCE / log).write_text(said)
    return code, said


def tail(said, lines=12):
    """The end of what a program said, for a failed line."""
    return "\n      | ".join(["", *said.strip().splitlines()[-lines:]])
