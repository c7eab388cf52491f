"""The HAProxy that the role configures: its template rendered, checked, started, reloaded, and asked for its view."""

import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import jinja2
import yaml

from node import EVIDENCE, ROOT, free_port

ROLE = ROOT / "ansible" / "roles" / "voice_media_bridge_balancer"
# HAProxy's sbin is not on everybody's path.
HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
START_SEC = 10

Line = collections.namedtuple("Line", "at server status method route call")
# What the template's log-format begins and ends with.
LOGGED = re.compile(r" \S+/(\S+) [-+\d/]+ (\d+) .* (\S+) route=(\S+) call=(\S+)$")


class Balancer:
    """A running HAProxy in front of these nodes."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.port, self._peer_port = free_port(), free_port()
        # A path in a socket's address is short: not below the evidence.
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="fleet-"))
        self._stats = self._folder / "stats"
        self._log = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._log.bind(("127.0.0.1", 0))
        self._log.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._logged = []
        self._process = None
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        with contextlib.suppress(OSError):
            while datagram := self._log.recv(8192):
                self._logged.append((time.monotonic(), datagram.decode(errors="replace").strip()))

    def render(self):
        """The role's template with the role's defaults, but for what loopback and a plain front change."""
        values = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
        prefix = "voice_media_bridge_balancer_"
        values |= {
            prefix + "nodes": [node.name for node in self.nodes],
            prefix + "listen": [f"127.0.0.1:{self.port}"],
            prefix + "tls_cert": "",
            prefix + "peer_name": "fleet",
            prefix + "peers": [{"name": "fleet", "address": "127.0.0.1", "port": self._peer_port}],
            prefix + "log": f"127.0.0.1:{self._log.getsockname()[1]} local0 info",
            prefix + "user": "",
            prefix + "stats_socket": str(self._stats),
            "hostvars": {
                node.name: {
                    "voice_media_bridge_address": "127.0.0.1",
                    "voice_media_bridge_api_port": node.port,
                    "voice_media_bridge_agent_check_port": node.agent_port,
                }
                for node in self.nodes
            },
        }
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True, autoescape=False
        )
        environment.filters["comment"] = lambda text: f"# {text}"
        return environment.from_string((ROLE / "templates" / "haproxy.cfg.j2").read_text()).render(values)

    def check(self):
        """What `haproxy -c` says of the configuration: exit code and words."""
        self._file = EVIDENCE / "haproxy.cfg"
        self._file.write_text(self.render())
        done = subprocess.run([HAPROXY, "-c", "-f", str(self._file)], capture_output=True, text=True)
        return done.returncode, (done.stdout + done.stderr).strip()

    def start(self):
        """Starts it as the service does, with a master process, and waits until each node is up."""
        log = open(EVIDENCE / "haproxy.log", "ab")
        self._process = subprocess.Popen(
            [HAPROXY, "-W", "-f", str(self._file), "-p", str(self._folder / "pid")], stdout=log, stderr=log
        )
        self.wait(lambda: all(self.state(node)["operational"] == 2 for node in self.nodes), "all nodes are up")

    def reload(self):
        """As `systemctl reload` does; returns once the new process answers."""
        before = self.command("show info").split("Pid: ")[1].split("\n")[0]
        self._process.send_signal(signal.SIGUSR2)
        self.wait(lambda: f"Pid: {before}\n" not in self.command("show info"), "a new process answers")

    def stop(self):
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._log.close()
        (EVIDENCE / "haproxy-requests.log").write_text(self.log())
        shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self, holds, what, limit_sec=START_SEC):
        """Polls, bounded; returns the seconds it took."""
        started = time.monotonic()
        while time.monotonic() - started < limit_sec:
            with contextlib.suppress(OSError, IndexError, KeyError):
                if holds():
                    return time.monotonic() - started
            time.sleep(0.01)
        raise RuntimeError(f"not within {limit_sec} s: {what}")

    def command(self, line):
        """One command on the stats socket."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(5)
            stream.connect(str(self._stats))
            stream.sendall(line.encode() + b"\n")
            return b"".join(iter(lambda: stream.recv(65536), b"")).decode()

    def state(self, node):
        """HAProxy's view of a node: `operational` 2 is up, `weight` is what it has now."""
        lines = self.command("show servers state bridges").splitlines()
        words = next(line for line in lines[1:] if f" {node.name} " in line).split()
        names = lines[1].removeprefix("# ").split()
        row = dict(zip(names, words))
        return {
            "operational": int(row["srv_op_state"]),
            "is_draining": bool(int(row["srv_admin_state"]) & 0x08) or int(row["srv_uweight"]) == 0,
            "weight": int(row["srv_uweight"]),
        }

    def uptime_sec(self):
        """Of the process that answers."""
        return int(self.command("show info").split("Uptime_sec: ")[1].split()[0])

    def bound_calls(self):
        """Entries of the table."""
        return int(self.command("show table bridges").split("used:")[1].split()[0])

    def log(self):
        """All that it has logged, as text."""
        return "\n".join(text for _, text in list(self._logged))

    def lines(self, since=0.0):
        """What it has logged of requests since this moment of `time.monotonic`."""
        time.sleep(0.2)  # the log comes by datagram, behind the answers
        found = [(at, LOGGED.search(text)) for at, text in list(self._logged) if at >= since]
        return [Line(at, *line.groups()) for at, line in found if line]

    def taken(self, node, since):
        """When this node took new calls, since this moment."""
        return [
            line.at for line in self.lines(since)
            if (line.server, line.route, line.status) == (node.name, "create", "200")
        ]
