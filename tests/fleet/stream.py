"""New calls, one after another without a pause, while something happens to the fleet."""

import threading
import time

from calls import Client, call_id


class NewCalls:
    """A webhook under constant load. `at` are moments of `time.monotonic`."""

    def __init__(self, balancer, name):
        self._balancer, self._name = balancer, name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers = []  # when it was asked, when it was answered, and what was said: a status or an error

    def __enter__(self):
        self.started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _run(self):
        client, number = Client(self._balancer), 0
        while not self._over.is_set():
            identity, at = call_id(f"{self._name} {number}"), time.monotonic()
            try:
                said = client.post(identity)[0]
            except OSError as error:
                said = repr(error)
            self.answers.append((at, time.monotonic(), said))
            # Each is hung up: these calls are here to be taken, not to fill the nodes.
            if said == 200:
                client.hang_up(identity)
            number += 1

    def failed(self):
        return [said for _, _, said in self.answers if said != 200]

    def longest_sec(self, since):
        """The longest that a caller who asked after this moment waited."""
        return max(done - at for at, done, _ in self.answers if at >= since)
