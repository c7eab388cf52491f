"""curl, wrk, Python's http.client, the Prometheus parser and raw sockets speak to the HTTP API."""

import http.client
import json
import re
import socket
import subprocess
import time

from prometheus_client.parser import text_string_to_metric_families

import bridge as server

LIMIT_SEC = 120
TOKEN = "interop-token-0123456789abcdef"
ID = "wacid.HBgMMjUw/NzA+MDAx=="
SLOW_MAX_SEC = 20  # a header that never ends is cut well before a connection's idle time would matter
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

POST = b"POST /bridge/stop HTTP/1.1\r\nHost: x\r\n"

# Requests that two parsers could read differently: each must be refused and the connection closed (RFC 9112 sections
# 2.2, 5.1, 6.1 and 6.3), or the second request inside would be taken for one.
AMBIGUOUS = {
    "both Content-Length and Transfer-Encoding": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths that differ": POST + b"Content-Length: 0\r\nContent-Length: 34\r\n\r\n",
    "a length with a sign": POST + b"Content-Length: +0\r\n\r\n",
    "a coding that is not chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 0\r\n\r\n",
    "a folded header": b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a chunk size with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
    "no Host": b"GET /health HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
}


def run(report):
    with server.running("http_clients", BRIDGE_AGENT="builtin") as bridge:
        files = open_files(bridge)
        by_curl(report, bridge)
        by_http_client(report, bridge)
        by_raw_sockets(report, bridge)
        by_wrk(report, bridge)
        by_prometheus(report, bridge)
        time.sleep(0.5)
        report.check(
            "no descriptor is left behind",
            abs(open_files(bridge) - files) <= 2,
            f"{files} before, {open_files(bridge)} after",
        )
    with server.running("http_token", BRIDGE_AGENT="builtin", BRIDGE_API_TOKEN=TOKEN) as bridge:
        with_a_token(report, bridge)


def by_curl(report, bridge):
    reply = curl(
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{num_connects}\\n",
        bridge.url + "/health",
        bridge.url + "/ready",
    )
    report.check(
        "curl reuses its connection", reply.split("\n")[:2] == ["200 1", "200 0"], reply.strip().replace("\n", ", ")
    )

    length = len(curl(bridge.url + "/health"))
    head = curl("--head", bridge.url + "/health").lower()
    report.check(
        "HEAD is GET without its body", head.startswith("http/1.1 200") and f"content-length: {length}\r" in head
    )

    chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Content-Type: application/json", "--data-binary", "@-"]
    reply = curl(*chunked, "-w", " %{http_code}", bridge.url + "/api/sessions", stdin='{"callId":"' + "x" * 3000 + '"}')
    report.check(
        "a chunked body is read", "Missing callId or sdpOffer" in reply and reply.endswith(" 400"), reply[-80:]
    )
    reply = curl(*chunked, "-w", " %{http_code}", bridge.url + "/api/sessions", stdin="x" * 200_000)
    report.check("a body of 200 kB is refused with 413", reply.endswith(" 413"), reply[-80:])
    started = time.monotonic()
    reply = curl(
        "-H", "Expect: 100-continue", "-w", " %{http_code}", "--data-binary", "{}", bridge.url + "/api/sessions"
    )
    report.check(
        "a client that expects 100 Continue need not wait for its timer",
        reply.endswith(" 400") and time.monotonic() - started < 0.9,
        f"{time.monotonic() - started:.2f} s",
    )

    reply = curl("-X", "DELETE", "-w", " %{http_code}", bridge.url + server.session_path(ID))
    report.check("a percent-encoded id is one path segment", reply.endswith(" 404") and "error" in reply, reply)
    reply = curl("-X", "PATCH", "-D", "-", bridge.url + "/health").lower()
    report.check(
        "a wrong method is 405 and says what is allowed",
        " 405 " in reply.split("\r\n")[0] and "\nallow:" in reply,
        reply.split("\r\n")[0],
    )
    reply = curl("-w", " %{http_code}", bridge.url + "/nothing/here")
    report.check("an unknown path is 404 in JSON", reply.endswith(" 404") and '{"error"' in reply, reply)
    reply = curl("-w", " %{http_code}", "--data-binary", "{not json", bridge.url + "/api/sessions")
    report.check("a body that is not JSON is 400", reply.endswith(" 400"), reply)
    reply = curl(
        "-H",
        "Content-Type: application/json",
        "-w",
        " %{http_code}",
        "-d",
        json.dumps({"callId": ID, "sdpOffer": "hello"}),
        bridge.url + "/api/sessions",
    )
    report.check("an offer that is not SDP is 400 and says so", reply.endswith(" 400"), reply)
    body = {"callId": ID, "sdpOffer": "v=0", "config": {"temperature": 1}}
    reply = curl("-w", " %{http_code}", "-d", json.dumps(body), bridge.url + "/api/sessions")
    report.check("an unknown word in config is 400 and named", reply.endswith(" 400") and "temperature" in reply, reply)


def by_http_client(report, bridge):
    connection = http.client.HTTPConnection("127.0.0.1", bridge.port, timeout=10)
    connection.connect()
    used, statuses = connection.sock, set()
    for _ in range(50):
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read()
        statuses.add(response.status)
    report.check(
        "http.client sends 50 requests on one connection", statuses == {200} and connection.sock is used, statuses
    )
    connection.close()


def by_raw_sockets(report, bridge):
    replies = exchange(bridge, GET * 4 + LAST)
    report.check(
        "five pipelined requests get five answers", replies.count(b"HTTP/1.1 200") == 5, replies.count(b"HTTP/1.1 ")
    )
    replies = exchange(bridge, GET.replace(b"health", b"nothing") + LAST)
    report.check(
        "in their order",
        re.findall(rb"HTTP/1.1 (\d+)", replies) == [b"404", b"200"],
        re.findall(rb"HTTP/1.1 (\d+)", replies),
    )
    replies = exchange(bridge, *(LAST[i : i + 1] for i in range(len(LAST))))
    report.check("a request may come byte by byte", replies.startswith(b"HTTP/1.1 200"))
    for name, request in AMBIGUOUS.items():
        replies = exchange(bridge, request + LAST)
        one = replies.startswith(b"HTTP/1.1 400") and replies.count(b"HTTP/1.1 ") == 1
        report.check(f"{name}: 400 and a close", one, re.findall(rb"HTTP/1.1 (\d+)", replies))

    with socket.create_connection(("127.0.0.1", bridge.port), 5) as slow:
        started = time.monotonic()
        slow.settimeout(1)
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX: ")
        while (cut := time.monotonic() - started) < SLOW_MAX_SEC:
            try:
                slow.sendall(b"a")
                if slow.recv(4096) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    report.check("a header that drips is cut off", cut < SLOW_MAX_SEC, f"after {cut:.1f} s")


def by_wrk(report, bridge):
    words = ["wrk", "-t1", "-c16", "-d3s", "--timeout", "5s", "--latency", bridge.url + "/health"]
    text = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False).stdout
    rate, slowest = re.search(r"Requests/sec:\s+(\S+)", text), re.search(r"99%\s+(\S+)", text)
    clean = rate and "Non-2xx" not in text and "Socket errors" not in text
    report.check("wrk on 16 connections sees no error", clean, f"{rate[1]}/s, p99 {slowest[1]}" if clean else text)
    report.check("the server is healthy after it", bridge.request("GET", "/health")[0] == 200)


def by_prometheus(report, bridge):
    _, text, headers = bridge.request("GET", "/metrics")
    families = list(text_string_to_metric_families(text))
    bare = [family.name for family in families if family.type == "unknown" or not family.documentation]
    report.check(
        "Prometheus' own parser reads the metrics, each with type and help",
        families and not bare,
        f"{len(families)} families" if not bare else bare[:5],
    )


def with_a_token(report, bridge):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    wrong = {"Authorization": f"Bearer {TOKEN[:-1]}0"}
    seen = [bridge.request("GET", "/api/sessions", headers=words)[0] for words in ({}, wrong, bearer)]
    report.check("without the token 401, with a wrong one 401, with it 200", seen == [401, 401, 200], seen)
    seen = [bridge.request("GET", f"/k/{token}/api/sessions")[0] for token in (TOKEN, TOKEN[:-1] + "0")]
    report.check("a webhook that knows only a base URL carries it in the path", seen == [200, 401], seen)
    seen = [bridge.request("GET", path)[0] for path in ("/health", "/ready", "/metrics", "/api/sessions/x")]
    report.check("health and readiness are open, the rest is not", seen == [200, 200, 401, 401], seen)
    report.check("the token is not in the log", TOKEN not in bridge.log.read_text(errors="replace"))


def curl(*words, stdin=None):
    """What curl printed; it has ten seconds."""
    words = ["curl", "-sS", "--max-time", "10", *words]
    return subprocess.run(
        words, input=stdin.encode() if stdin else None, capture_output=True, timeout=20
    ).stdout.decode()


def exchange(bridge, *pieces):
    """Sends these bytes and returns all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", bridge.port), 5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while part := connection.recv(65536):
                received += part
        except OSError:
            pass
    return received


def open_files(bridge):
    """How many descriptors the server holds."""
    return len(list((server.pathlib.Path("/proc") / str(bridge.process.pid) / "fd").iterdir()))
