"""Meta, as far as the fleet needs it: a Graph API that grants everything and writes it down, and signed webhooks.

One for the whole run, since the nodes are told of it when they start.
"""

import hashlib
import hmac
import http.server
import json
import threading
import time

APP_SECRET, ACCESS_TOKEN, VERIFY_TOKEN = "fleet-app-secret", "fleet-access-token", "fleet-verify-token"
NUMBER = "106540352242922"
PATH = "/webhooks/whatsapp"

_asked = []
_lock = threading.Lock()


class _Grants(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer({"id": NUMBER})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with _lock:
            _asked.append((asked["call_id"], asked["action"]))
        self._answer({"messaging_product": "whatsapp", "success": True})

    def _answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Grants)
_server.daemon_threads = True
threading.Thread(target=_server.serve_forever, daemon=True).start()


def settings():
    """What each node is started with."""
    return {
        "BRIDGE_GRAPH_URL": f"http://127.0.0.1:{_server.server_address[1]}",
        "WHATSAPP_APP_SECRET": APP_SECRET,
        "WHATSAPP_ACCESS_TOKEN": ACCESS_TOKEN,
        "WHATSAPP_VERIFY_TOKEN": VERIFY_TOKEN,
        "WHATSAPP_PHONE_NUMBER_ID": NUMBER,
    }


def asked(identity):
    """What the nodes have asked about a call, in order."""
    with _lock:
        return [action for other, action in _asked if other == identity]


def webhook(*events):
    """A body with these call events, and the header that signs it."""
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": NUMBER}, "calls": list(events)}
    change = {"field": "calls", "value": value}
    body = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}
    # As Meta's own programs write it.
    data = json.dumps(body).replace("/", "\\/").encode()
    signature = hmac.new(APP_SECRET.encode(), data, hashlib.sha256).hexdigest()
    return data, {"X-Hub-Signature-256": f"sha256={signature}"}


def connect(identity, sdp):
    return _event(identity, "connect") | {"session": {"sdp_type": "offer", "sdp": sdp}}


def terminate(identity):
    return _event(identity, "terminate") | {"status": "COMPLETED", "duration": 5}


def _event(identity, event):
    words = {"id": identity, "from": "15550100", "to": "15550199", "event": event, "direction": "USER_INITIATED"}
    return words | {"timestamp": str(int(time.time()))}
