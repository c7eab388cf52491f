"""The server under test: started on loopback, asked over HTTP, ended.

Knows the session API and nothing of media. Everything it starts it ends, and its log is kept beside the evidence.
"""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "target" / "interop"
BINARY = pathlib.Path(os.environ.get("BRIDGE_BINARY", ROOT / "target" / "release" / "voice-media-bridge"))

START_SEC = 15  # a loaded two-core machine starts it in well under one
STOP_SEC = 10
PROGRAM_START_SEC = 60  # what others wrote loads half of Python first
MEDIA_PORTS = "42000-42199"


class Bridge:
    """A running server."""

    def __init__(self, port, process, log, ca=None):
        self.port, self.process, self.log = port, process, log
        self.tls = ssl.create_default_context(cafile=ca) if ca else None

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def connect(self, timeout_sec=15):
        """A connection that nothing was asked on."""
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout_sec, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_sec)

    def request(self, method, path, body=None, headers=None, timeout_sec=15):
        """One request on one connection: status, parsed JSON (or text), headers."""
        connection = self.connect(timeout_sec)
        with contextlib.closing(connection):
            data = json.dumps(body).encode() if body is not None else None
            words = {"Content-Type": "application/json"} if data else {}
            connection.request(method, path, data, words | (headers or {}))
            response = connection.getresponse()
            text = response.read().decode()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(text) if is_json and text else text, response.headers

    def session(self, call_id, query=""):
        """`GET /api/sessions/{callId}`: status and body."""
        return self.request("GET", session_path(call_id) + query)[:2]

    def hang_up(self, call_id):
        """`DELETE /api/sessions/{callId}`: status and body."""
        return self.request("DELETE", session_path(call_id))[:2]

    def live_calls(self):
        """How many calls `GET /api/sessions` lists, and their ids."""
        body = self.request("GET", "/api/sessions")[1]
        return body["count"], [session.get("callId") for session in body["sessions"]]


def session_path(call_id):
    """Call ids carry `=`, `/` and `+`."""
    return "/api/sessions/" + urllib.parse.quote(call_id, safe="")


def free_port(kind=socket.SOCK_STREAM):
    """A port that is free now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(name, ca=None, **environment):
    """Starts the server, waits until it is ready, and ends it: first as systemd would, then by force. With `ca`, a file of
    authorities, it is asked over https."""
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {
        "PORT": str(port),
        "BRIDGE_LISTEN": f"127.0.0.1:{port}",
        "BRIDGE_MEDIA_IP": "127.0.0.1",
        "BRIDGE_MEDIA_PORTS": MEDIA_PORTS,
        "BRIDGE_LOG": "info",
        "BRIDGE_DRAIN_SEC": "0",
    }
    keep = {
        word: value for word, value in os.environ.items() if not word.startswith(("BRIDGE_", "OPENAI_", "WHATSAPP_"))
    }
    log_path = EVIDENCE / f"{name}.log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen([str(BINARY)], env=keep | settings | environment, stdout=log, stderr=log)
    bridge = Bridge(port, process, log_path, ca)
    try:
        wait_until_ready(bridge)
        yield bridge
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SEC)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(bridge):
    """Polls `/ready`, bounded."""
    until = time.monotonic() + START_SEC
    while time.monotonic() < until:
        if bridge.process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            if bridge.request("GET", "/ready", timeout_sec=1)[0] == 200:
                return
        time.sleep(0.05)
    tail = bridge.log.read_text(errors="replace")[-2000:]
    raise RuntimeError(
        f"the server is not ready after {START_SEC} s (exit {bridge.process.poll()}); its log ends:\n{tail}"
    )


@contextlib.contextmanager
def program(what, command, log, port, path="/", is_up=lambda response: True):
    """A server that others wrote: started, awaited until it answers on its port, ended; its log is kept."""
    with open(EVIDENCE / log, "ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=dict(os.environ))
    try:
        until = time.monotonic() + PROGRAM_START_SEC
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                with contextlib.closing(connection):
                    connection.request("GET", path)
                    if is_up(connection.getresponse()):
                        break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"{what} does not start; see {EVIDENCE / log}")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
