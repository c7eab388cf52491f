"""How well this machine lets a plain process keep a 20 ms beat: what the bridge's own beat is to be measured against.

Started as a program of its own, `metronome.py SECONDS`, it prints the share of beats that were a whole beat late.
"""

import subprocess
import sys
import time

BEAT_SEC = 0.02


class Beside:
    """Keeps the beat beside a measurement for so many seconds."""

    def __init__(self, seconds):
        self._process = subprocess.Popen([sys.executable, __file__, str(seconds)], stdout=subprocess.PIPE, text=True)

    def missed(self):
        """The share of beats missed, 0 to 1, once it has ended."""
        return float(self._process.communicate(timeout=30)[0])


def keep(seconds):
    """Beats on an absolute schedule; a beat that is a whole one late is missed."""
    started, beats = time.monotonic(), int(seconds / BEAT_SEC)
    missed = 0
    for beat in range(1, beats + 1):
        due = started + beat * BEAT_SEC
        time.sleep(max(0, due - time.monotonic()))
        missed += time.monotonic() - due > BEAT_SEC
    return missed / beats


if __name__ == "__main__":
    print(keep(float(sys.argv[1])))
