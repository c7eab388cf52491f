"""Call ids as WhatsApp makes them, the ways in which clients write them, and requests about calls through the balancer."""

import base64
import hashlib
import http.client
import json
import pathlib
import sys
import urllib.parse

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "interop"))

from offer import credentials, whatsapp_offer  # noqa: E402  (the interop suite's)

from node import TOKEN, ask  # noqa: E402

OFFER_FROM = ("127.0.0.1", 3480)


def call_id(name):
    """The same for the same name, of base64 that has `+`, `/` and `=` as real ones do."""
    digest = hashlib.sha512(name.encode()).digest()
    return "wacid." + base64.b64encode(digest[:58]).decode()


def log_id(identity):
    """What logs say instead."""
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def offer(address=OFFER_FROM[0]):
    """An offer of nobody: nothing answers its checks, and nothing of these tests waits for that."""
    username, password = credentials()
    return whatsapp_offer(address, OFFER_FROM[1], username, password, ":".join(["AB"] * 32), 1234)


def in_path(identity, way):
    """The id as a path segment: all of them mean the same."""
    return [
        lambda: urllib.parse.quote(identity, safe=""),
        lambda: identity.replace("/", "%2f"),  # `=` and `+` may stand as they are
        lambda: urllib.parse.quote(identity, safe="").replace("%2B", "%2b").replace("%3D", "%3d"),
        lambda: "".join(f"%{byte:02X}" for byte in identity.encode()),
    ][way % 4]()


def in_json(identity, way):
    """The id as a JSON string: all of them mean the same."""
    return [
        lambda: json.dumps(identity),
        lambda: json.dumps(identity).replace("/", "\\/"),  # PHP
        lambda: json.dumps(identity).replace("=", "\\u003d").replace("+", "\\u002B"),  # Gson
        lambda: '"' + "".join(f"\\u{ord(letter):04x}" for letter in identity) + '"',
    ][way % 4]()


def post_body(identity, sdp, way):
    """The body of POST: the id first, last, or behind another thing of that name; sometimes as long as is allowed."""
    key, text = in_json(identity, way), json.dumps(sdp)
    other = '"config":{"metadata":{"callId":"not this one"}}'
    body = [
        lambda: f'{{"callId":{key},"sdpOffer":{text}}}',
        lambda: f'{{{other},"sdpOffer":{text},"callId":{key}}}',
        lambda: f'{{ "sdpOffer" : {text},\n {other}, "callId" : {key} }}',
    ][way % 3]()
    return body.encode()


class Client:
    """A webhook: one kept connection to the balancer, its token in a header or in the path."""

    def __init__(self, balancer, is_token_in_path=False):
        self._connection = http.client.HTTPConnection("127.0.0.1", balancer.port, timeout=40)
        self._prefix = f"/k/{TOKEN}" if is_token_in_path else ""
        self._token = None if is_token_in_path else TOKEN

    def ask(self, method, path, body=None):
        """Status and parsed JSON. A connection that the other end has closed is made again."""
        try:
            return ask(None, method, self._prefix + path, body, token=self._token, connection=self._connection)[:2]
        except OSError:
            self._connection.close()
            raise

    def post(self, identity, sdp=None, way=0):
        return self.ask("POST", "/api/sessions", post_body(identity, sdp or offer(), way))

    def put(self, identity, sdp=None, way=0):
        return self.ask("PUT", f"/api/sessions/{in_path(identity, way)}", {"sdpOffer": sdp or offer()})

    def get(self, identity, way=0, below=""):
        return self.ask("GET", f"/api/sessions/{in_path(identity, way)}{below}")

    def hang_up(self, identity, way=0):
        return self.ask("DELETE", f"/api/sessions/{in_path(identity, way)}")

    def stop(self, identity, way=0):
        return self.ask("POST", "/bridge/stop", f'{{"callId":{in_json(identity, way)}}}'.encode())
