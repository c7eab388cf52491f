"""curl, OpenSSL, Python's ssl and wrk speak https to the session API; OpenSSL makes its certificates."""

import contextlib
import json
import re
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import bridge as server

LIMIT_SEC = 150
TOKEN = "interop-token-0123456789abcdef"
STALLED = 1000
HANDSHAKE_MAX_SEC = 20  # a handshake that never ends is cut well before
LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

# The forms in which tools write private keys, as OpenSSL makes them.
KEYS = {
    "ECDSA P-256, PKCS#8": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ECDSA P-256, SEC1": ["ecparam", "-genkey", "-name", "prime256v1"],
    "RSA 2048, PKCS#8": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "RSA 2048, PKCS#1": ["genrsa", "-traditional", "2048"],
    "Ed25519, PKCS#8": ["genpkey", "-algorithm", "ED25519"],
}

# What must be refused, and what asks for it. OpenSSL itself forbids most of it unless told otherwise.
OLD = {
    "TLS 1.0": ["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
    "TLS 1.1": ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
    "a cipher without forward secrecy": ["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"],
    "a cipher in CBC mode": ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
    "a cipher without authentication": ["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
    "only h2 inside": ["-alpn", "h2"],
}


def run(report):
    files = server.EVIDENCE / "tls"
    files.mkdir(parents=True, exist_ok=True)
    make_authority(files)
    for number, (form, words) in enumerate(KEYS.items()):
        issue(files, 30, words)
        with secure(f"tls_key_{number}", files) as bridge:
            reply = curl(files, "-w", " %{http_code}", bridge.url + "/health")
            report.check(f"a key in the form {form} serves", reply.endswith(" 200"), reply[-40:])
    issue(files, 30)
    with secure("tls_clients", files) as bridge:
        by_curl(report, bridge, files)
        by_openssl(report, bridge, files)
        by_python(report, bridge, files)
        by_stalled_clients(report, bridge, files)
        by_wrk(report, bridge)
        by_sighup(report, bridge, files)
        report.check("the token is not in the log", TOKEN not in bridge.log.read_text(errors="replace"))


def by_curl(report, bridge, files):
    two = ["-o", "/dev/null", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\\n"]
    reply = curl(files, *two, bridge.url + "/health", bridge.url + "/ready")
    lines = reply.split("\n")[:2]
    report.check("curl trusts the authority and reuses its connection", lines == ["200 1", "200 0"], lines)
    talk = curl(files, "-v", bridge.url + "/health", both=True)
    report.check("curl offers h2 and is given http/1.1", "server accepted http/1.1" in talk)
    report.check("curl reads the end of TLS without complaint", "error" not in talk.lower().replace('"error"', ""))
    reply = curl(files, "-w", " %{http_code}", bridge.url + "/api/sessions")
    report.check("without the token 401", reply.endswith(" 401"), reply[-4:])
    bearer = ["-H", f"Authorization: Bearer {TOKEN}"]
    reply = curl(files, *bearer, "-w", " %{http_code}", bridge.url + "/api/sessions")
    report.check("with it 200", reply.endswith(" 200"), reply[-4:])
    big = ["-H", "Transfer-Encoding: chunked", "--data-binary", "@-", "-w", " %{http_code}"]
    reply = curl(files, *bearer, *big, bridge.url + "/api/sessions", stdin="x" * 200_000)
    report.check("a body of 200 kB is refused with 413", reply.endswith(" 413"), reply[-60:])
    reply = curl(files, "-w", " %{http_code}", bridge.url.replace("https", "http") + "/health")
    is_told = reply.endswith(" 400") and "use https://" in json.loads(reply[:-4])["error"]
    report.check("plain HTTP on the port is told to use https", is_told, reply)
    code = subprocess.run(["curl", "-sS", bridge.url + "/health"], capture_output=True, timeout=20, check=False).returncode
    report.check("who does not know the authority does not trust the certificate", code == 60, f"curl's exit code {code}")


def by_openssl(report, bridge, files):
    for version in ("TLSv1.3", "TLSv1.2"):
        talk = s_client(bridge, files, "-" + version.lower().replace("v", "").replace(".", "_"), "-alpn", "h2,http/1.1")
        seen = re.findall(r"ALPN protocol: (\S+)|Verify return code: (\d+)|(?:New|Reused), (TLSv1.\d)", talk)
        words = {word for group in seen for word in group if word}
        report.check(f"OpenSSL verifies and speaks {version} with http/1.1 inside", {version, "http/1.1", "0"} <= words, words)
    session = files / "session.pem"
    for version in ("-tls1_3", "-tls1_2"):
        s_client(bridge, files, version, "-sess_out", session)
        talk = s_client(bridge, files, version, "-sess_in", session)
        report.check(f"OpenSSL resumes its session ({version})", "Reused, " in talk)
    for name, words in OLD.items():
        talk = s_client(bridge, files, *words)
        refusal = re.search(r"alert (\w+ ?)+", talk)  # OpenSSL's word for what the other end said
        refused = refusal and "HTTP/1.1" not in talk
        report.check(f"{name} is refused, by us", refused, refusal[0] if refusal else talk[-200:])
    ends = openssl("x509", "-noout", "-enddate", stdin=s_client(bridge, files, "-showcerts"))
    report.note("the certificate that is shown", ends.strip())
    seconds = int(re.search(r"^voice_media_bridge_tls_certificate_not_after_seconds (\d+)", metrics(bridge), re.M)[1])
    same = seconds == ssl.cert_time_to_seconds(ends.strip().partition("=")[2])
    report.check("its end is in the metrics", same, seconds)


def by_python(report, bridge, files):
    trusting = ssl.create_default_context(cafile=files / "ca.pem")
    opened = urllib.request.urlopen(bridge.url + "/health", context=trusting, timeout=10)
    report.check("urllib asks and trusts", opened.status == 200 and json.loads(opened.read())["status"] == "healthy")
    try:
        urllib.request.urlopen(bridge.url + "/health", timeout=10)
        report.check("urllib without the authority refuses", False)
    except urllib.error.URLError as error:
        report.check("urllib without the authority refuses", "CERTIFICATE_VERIFY_FAILED" in str(error))

    connection = bridge.connect()
    connection.connect()
    used, statuses = connection.sock, set()
    for _ in range(50):
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read()
        statuses.add(response.status)
    kept = statuses == {200} and connection.sock is used
    report.check("http.client sends 50 requests on one connection", kept, f"{statuses}, {used.version()}, {used.cipher()[0]}")
    connection.close()

    # With ragged ends an error, recv returns nothing only where the server has sent close_notify.
    with socket.create_connection(("127.0.0.1", bridge.port), 10) as raw:
        with trusting.wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as secure_socket:
            secure_socket.sendall(LAST)
            received = b""
            while part := secure_socket.recv(4096):
                received += part
    report.check("after the last answer TLS is ended before TCP", received.startswith(b"HTTP/1.1 200"))
    report.check("an idle connection is ended so too", idle_end_is_clean(bridge, trusting))

    answer = byte_by_byte(bridge, trusting)
    report.check("a handshake and a request may come byte by byte", answer.startswith(b"HTTP/1.1 200"), answer[:20])
    for name, first in {
        "half a ClientHello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "nothing at all": b"",
        "a record of 16 kB that drips": b"\x16\x03\x01\x40\x00\x01",
    }.items():
        cut = time_until_cut(bridge, first)
        report.check(f"{name} is cut off", cut < HANDSHAKE_MAX_SEC, f"after {cut:.1f} s")


def by_stalled_clients(report, bridge, files):
    with contextlib.ExitStack() as stack:
        for _ in range(STALLED):
            stalled = stack.enter_context(socket.create_connection(("127.0.0.1", bridge.port), 5))
            stalled.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        reply = curl(files, "-w", " %{http_code} %{time_appconnect} %{time_total}", bridge.url + "/health")
        words = reply.split()[-3:]
        report.check(f"curl is served beside {STALLED} stalled handshakes", words[0] == "200", f"handshake {words[1]} s, all {words[2]} s")


def by_wrk(report, bridge):
    words = ["wrk", "-t1", "-c16", "-d3s", "--timeout", "5s", "--latency", bridge.url + "/health"]
    text = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False).stdout
    rate, slowest = re.search(r"Requests/sec:\s+(\S+)", text), re.search(r"99%\s+(\S+)", text)
    clean = rate and "Non-2xx" not in text and "Socket errors" not in text
    report.check("wrk on 16 connections sees no error", clean, f"{rate[1]}/s, p99 {slowest[1]}" if clean else text)
    shut = ["wrk", "-t1", "-c16", "-d3s", "--timeout", "5s", "-H", "Connection: close", bridge.url + "/health"]
    text = subprocess.run(shut, capture_output=True, text=True, timeout=30, check=False).stdout
    rate = re.search(r"Requests/sec:\s+(\S+)", text)
    report.check("nor with a handshake for each request", rate and "Non-2xx" not in text, rate and f"{rate[1]}/s")


def by_sighup(report, bridge, files):
    connection = bridge.connect()
    connection.request("GET", "/health")
    connection.getresponse().read()
    before, kept = shown_until(bridge, files), connection.sock
    issue(files, 60)
    bridge.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 5
    while shown_until(bridge, files) == before and time.monotonic() < until:
        time.sleep(0.05)
    after = shown_until(bridge, files)
    report.check("after SIGHUP OpenSSL sees the new certificate", after > before, f"{(after - before) / 86_400:.0f} days later")
    connection.request("GET", "/health")
    answered = connection.getresponse().status == 200 and connection.sock is kept
    report.check("and a kept connection goes on", answered)
    connection.close()
    (files / "key.pem").write_text("nonsense")
    bridge.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 5
    while 'reloads_total{outcome="failed"} 1' not in metrics(bridge) and time.monotonic() < until:
        time.sleep(0.05)
    report.check("a bad key changes nothing", shown_until(bridge, files) == after)
    report.check("and the log says why", "BRIDGE_TLS_KEY" in bridge.log.read_text(errors="replace"))


def idle_end_is_clean(bridge, trusting):
    """A connection that asked once and then nothing more, read until the server ends it."""
    with socket.create_connection(("127.0.0.1", bridge.port), 30) as raw:
        with trusting.wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as connection:
            connection.sendall(LAST.replace(b"Connection: close\r\n", b""))
            while connection.recv(4096):
                pass
    return True


def byte_by_byte(bridge, trusting):
    """A request whose TLS is handed to the kernel one byte at a time; what comes back."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", bridge.port), 10) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def pump(step):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    drip()
                    incoming.write(raw.recv(65536))

        def drip():
            for byte in outgoing.read():
                raw.sendall(bytes([byte]))

        pump(session.do_handshake)
        session.write(LAST)
        drip()
        return pump(lambda: session.read(4096))


def time_until_cut(bridge, first):
    """Seconds until the server ends a connection that sends this and then one byte a second."""
    with socket.create_connection(("127.0.0.1", bridge.port), 5) as slow:
        started = time.monotonic()
        slow.settimeout(1)
        slow.sendall(first)
        while (cut := time.monotonic() - started) < HANDSHAKE_MAX_SEC:
            try:
                if first:
                    slow.sendall(b"\x00")
                if slow.recv(4096) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    return cut


def make_authority(files):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90",
            "-subj", "/CN=interop authority", "-keyout", files / "ca-key.pem", "-out", files / "ca.pem")  # fmt: skip


def issue(files, days, key=KEYS["ECDSA P-256, PKCS#8"]):
    """A new key and a certificate for this host that is valid so long, over what the files held."""
    (files / "key.pem").write_text(openssl(*key))
    request = openssl("req", "-new", "-key", files / "key.pem", "-subj", "/CN=interop bridge")
    (files / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    leaf = openssl("x509", "-req", "-days", str(days), "-CA", files / "ca.pem", "-CAkey", files / "ca-key.pem",
                   "-CAcreateserial", "-extfile", files / "names", stdin=request)  # fmt: skip
    (files / "cert.pem").write_text(leaf + (files / "ca.pem").read_text())


@contextlib.contextmanager
def secure(name, files):
    settings = {"BRIDGE_TLS_CERT": str(files / "cert.pem"), "BRIDGE_TLS_KEY": str(files / "key.pem")}
    with server.running(name, ca=files / "ca.pem", BRIDGE_AGENT="builtin", BRIDGE_API_TOKEN=TOKEN, **settings) as bridge:
        yield bridge


def metrics(bridge):
    return bridge.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})[1]


def shown_until(bridge, files):
    """When the certificate that the server shows ends, seconds since 1970."""
    ends = openssl("x509", "-noout", "-enddate", stdin=s_client(bridge, files))
    return ssl.cert_time_to_seconds(ends.strip().partition("=")[2])


def s_client(bridge, files, *words):
    """All that `openssl s_client` says of one connection on which it asks for /health."""
    words = ["openssl", "s_client", "-ign_eof", "-connect", f"127.0.0.1:{bridge.port}", "-CAfile", files / "ca.pem", *words]
    found = subprocess.run(words, input=LAST, capture_output=True, timeout=20, check=False)
    return (found.stdout + found.stderr).decode(errors="replace")


def openssl(*words, stdin=""):
    """What OpenSSL printed."""
    words = ["openssl", *map(str, words)]
    return subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=20, check=True).stdout


def curl(files, *words, stdin=None, both=False):
    """What curl printed, with `both` also to standard error; it has ten seconds."""
    words = ["curl", "-sS", "--max-time", "10", "--cacert", files / "ca.pem", *words]
    found = subprocess.run(words, input=stdin.encode() if stdin else None, capture_output=True, timeout=20, check=False)
    return (found.stdout + (found.stderr if both else b"")).decode()
