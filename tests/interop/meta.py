"""Meta's side of the signalling: webhooks laid out as documented, their signature, and a Graph API that notes what it is told.

This Graph API takes everything and judges nothing; it is there so that a bridge has somebody to answer. Numbers and names are
made up.
"""

import asyncio
import collections
import hashlib
import hmac
import json
import time

from aiohttp import web

APP_SECRET = "0123456789abcdef0123456789abcdef"
VERIFY_TOKEN = "a-word-that-both-sides-know"
ACCESS_TOKEN = "EAAinterop"
PHONE_NUMBER_ID = "106540352242922"
BUSINESS_NUMBER = "15550783881"
CALLER = "250788000001"
PATH = "/webhooks/whatsapp"
SIGNATURE = "X-Hub-Signature-256"

Asked = collections.namedtuple("Asked", "at action body authorization")


def settings(graph_url, **more):
    """What makes a bridge take Meta's webhook and speak to this Graph API."""
    return {
        "WHATSAPP_APP_SECRET": APP_SECRET,
        "WHATSAPP_VERIFY_TOKEN": VERIFY_TOKEN,
        "WHATSAPP_ACCESS_TOKEN": ACCESS_TOKEN,
        "WHATSAPP_PHONE_NUMBER_ID": PHONE_NUMBER_ID,
        "BRIDGE_GRAPH_URL": graph_url,
    } | more


def signature(body, secret=APP_SECRET):
    """The header's value, by Python's hmac."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def webhook(*changes):
    """A body with these changes, escaped as Meta's are: ASCII alone, and every slash."""
    entry = {"id": "102290129340398", "changes": list(changes)}
    text = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}, separators=(",", ":"))
    return text.replace("/", "\\/").encode()


def call_change(event, call_id, caller=CALLER, **fields):
    """A change of the field `calls`, with one call."""
    call = {
        "id": call_id,
        "from": caller,
        "from_user_id": user_id(caller),
        "to": BUSINESS_NUMBER,
        "event": event,
        "timestamp": str(int(time.time())),
        "direction": "USER_INITIATED",
    }
    return _change("calls", caller, calls=[call | fields])


def connect(call_id, sdp_offer, caller=CALLER):
    """Somebody calls."""
    return call_change("connect", call_id, caller, session={"sdp_type": "offer", "sdp": sdp_offer})


def terminate(call_id, caller=CALLER, duration_sec=4):
    """Somebody has hung up."""
    end = int(time.time())
    times = {"start_time": str(end - duration_sec), "end_time": str(end), "duration": duration_sec}
    return call_change("terminate", call_id, caller, status="COMPLETED", **times)


def text(words, caller=CALLER, number=0):
    """Somebody writes."""
    message = {
        "from": caller,
        "from_user_id": user_id(caller),
        "id": f"wamid.{caller}.{number}",
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": words},
    }
    return _change("messages", caller, messages=[message])


def _change(field, caller, **value):
    numbers = {"display_phone_number": BUSINESS_NUMBER, "phone_number_id": PHONE_NUMBER_ID}
    contact = {"profile": {"name": "Zoë Nelson"}, "wa_id": caller, "user_id": user_id(caller)}
    common = {"messaging_product": "whatsapp", "metadata": numbers, "contacts": [contact]}
    return {"field": field, "value": common | value}


def user_id(caller):
    """What stands beside every number since 2026, and in its place where the caller has a user name."""
    return f"RW.{int(caller) * 977}"


class Graph:
    """A Graph API on loopback."""

    def __init__(self, on_asked=None):
        """`on_asked`: an async function that gets each `Asked` before it is answered."""
        self.asked, self._on_asked, self._news = [], on_asked, asyncio.Event()

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/{version}/{number}/calls", self._calls)
        app.router.add_route("*", "/{rest:.*}", self._other)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    def of(self, action, call_id=None):
        """The requests of one action, of one call or of all."""
        return [a for a in self.asked if a.action == action and call_id in (None, a.body.get("call_id"))]

    async def wait_for(self, action, call_id=None, seconds=5):
        """The first request of an action, or None when none comes in time."""
        until = time.monotonic() + seconds
        while not (found := self.of(action, call_id)):
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), until - time.monotonic())
            except TimeoutError:
                return None
        return found[0]

    async def _calls(self, request):
        body = await request.json()
        asked = Asked(time.monotonic(), body.get("action"), body, request.headers.get("Authorization"))
        self.asked.append(asked)
        self._news.set()
        if self._on_asked:
            await self._on_asked(asked)
        return web.json_response({"messaging_product": "whatsapp", "success": True})

    async def _other(self, request):
        """Anything else that is asked, so that nobody waits: what is known of a number."""
        return web.json_response({"id": PHONE_NUMBER_ID, "verified_name": "Interop", "success": True})
