"""One bridge of the fleet: started, asked by its own address, killed, started again on the same ports."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.parse

import graph

ROOT = pathlib.Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "target" / "fleet"
BINARY = pathlib.Path(os.environ.get("BRIDGE_BINARY", ROOT / "target" / "release" / "voice-media-bridge"))
TOKEN = "fleet-test-token-0123456789"

START_SEC = 15  # a loaded two-core machine starts it in well under one
DRAIN_SEC = 40  # more than any load of these tests lasts


class Node:
    """A bridge and its agent-check. `media` is its range of UDP ports."""

    def __init__(self, name, media):
        self.name, self.media = name, media
        self.port, self.agent_port = free_port(), free_port()
        self.process = None

    def start(self):
        """Starts it and waits until it is ready."""
        EVIDENCE.mkdir(parents=True, exist_ok=True)
        keep = {word: value for word, value in os.environ.items() if not word.startswith(("BRIDGE_", "OPENAI_", "WHATSAPP_"))}
        settings = {
            "BRIDGE_LISTEN": f"127.0.0.1:{self.port}",
            "BRIDGE_AGENT_CHECK_LISTEN": f"127.0.0.1:{self.agent_port}",
            "BRIDGE_API_TOKEN": TOKEN,
            "BRIDGE_AGENT": "builtin",
            "BRIDGE_MEDIA_IP": "127.0.0.1",
            "BRIDGE_MEDIA_PORTS": self.media,
            "BRIDGE_WORKERS": "1",
            # Three bridges and their callers share a small machine: here a busy core is no reason to refuse.
            "BRIDGE_ADMIT_BUSY_PERCENT": "100",
            "BRIDGE_DRAIN_SEC": str(DRAIN_SEC),
            **graph.settings(),
        }
        with open(EVIDENCE / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen([str(BINARY)], env=keep | settings, stdout=log, stderr=log)
        until = time.monotonic() + START_SEC
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/ready")[0] == 200:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} is not ready after {START_SEC} s: see {EVIDENCE / self.name}.log")

    def request(self, method, path, body=None):
        """One request by its own address: status and parsed JSON."""
        status, answer, _ = ask(self.port, method, path, body)
        return status, answer

    def knows(self, call_id):
        """Whether it has this call, live or ended."""
        return self.request("GET", session_path(call_id))[0] == 200

    def live_calls(self):
        return self.request("GET", "/api/sessions")[1]["count"]

    def drain(self):
        """As systemd stops it."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self):
        """As a crash ends it."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Whatever it is doing: twice SIGTERM ends it at once, and SIGKILL if not."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def ask(port, method, path, body=None, headers=None, token=TOKEN, connection=None):
    """One request to a port of this machine: status, parsed JSON (or text), headers."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    words = {"Content-Type": "application/json"} if data else {}
    words |= {"Authorization": f"Bearer {token}"} if token else {}
    own = connection is None
    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=40)
    try:
        connection.request(method, path, data, words | (headers or {}))
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        if own:
            connection.close()
    is_json = response.headers.get_content_type() == "application/json"
    return response.status, json.loads(text) if is_json and text else text, response.headers


def session_path(call_id):
    """Call ids carry `=`, `/` and `+`."""
    return "/api/sessions/" + urllib.parse.quote(call_id, safe="")


def free_port():
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
