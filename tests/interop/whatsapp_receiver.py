"""A WhatsApp bot on `pywa`: its own server, its own check of Meta's signature, its own reading of what comes.

`whatsapp_receiver.py PORT FILE` appends a line of JSON for each request as it arrives, and one for each message that pywa
has let through to its handler.
"""

import hashlib
import json
import sys

import fastapi
import pywa
import uvicorn

import meta

ENDPOINT = "/webhook"
port, path = int(sys.argv[1]), sys.argv[2]
app = fastapi.FastAPI()
bot = pywa.WhatsApp(
    server=app,
    webhook_endpoint=ENDPOINT,
    app_secret=meta.APP_SECRET,
    verify_token=meta.VERIFY_TOKEN,
    filter_updates=False,
    skip_duplicate_updates=False,
)


def tell(**line):
    """One line of what was seen."""
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


@bot.on_message
def on_message(_, message):
    tell(handled=message.text, sender=message.from_user.wa_id)


@bot.on_call_connect
def on_call(_, call):
    tell(handled="a call", sender=call.from_user.wa_id)


class Noted:
    """The application, with what comes noted before it gets there."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] != ENDPOINT:
            return await self.inner(scope, receive, send)
        body = bytearray()

        async def received():
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def sent(message):
            if message["type"] == "http.response.start":
                signature = dict(scope["headers"]).get(meta.SIGNATURE.lower().encode(), b"").decode()
                digest = hashlib.sha256(body).hexdigest()
                tell(status=message["status"], sha256=digest, signature=signature)
            await send(message)

        await self.inner(scope, received, sent)


uvicorn.run(Noted(app), host="127.0.0.1", port=port, log_level="warning")
