"""A bridge that we did not write: pipecat's client for WhatsApp and its WebRTC, with a parrot in place of a bot.

`whatsapp_pipecat.py PORT GRAPH_URL` takes Meta's webhook on loopback. What it answers, when, and with which SDP is pipecat's.
The parrot greets with a note, and says back what was said.
"""

import asyncio
import contextlib
import sys

import aiohttp
import numpy
from aiohttp import web
from pipecat.transports.whatsapp import api, client

import meta
import speech
from caller import Voice  # its import lets aioice use loopback

GREETING_HZ, GREETING_SEC = 440, 1.5
LOUD = 300  # RMS that counts as speech
QUIET_SEC = 0.5  # ends what is said

port, graph_url = int(sys.argv[1]), sys.argv[2]
api.WhatsAppApi.BASE_URL = f"{graph_url}/v24.0/"


def greeting():
    """A note at a telephone's level."""
    at = numpy.arange(int(GREETING_SEC * speech.RATE)) / speech.RATE
    return (8000 * numpy.sin(2 * numpy.pi * GREETING_HZ * at)).astype(numpy.int16)


async def parrot(connection, _call):
    """pipecat's callback: the call is up."""
    voice = Voice()
    voice.may_speak.set()
    connection.replace_audio_track(voice)
    await connection.connect()
    voice.say(greeting())
    connection.listening = asyncio.ensure_future(say_back(connection, voice))


async def say_back(connection, voice):
    """A turn ends with time and not with samples: in silence phones send few packets or none."""
    clock = asyncio.get_running_loop().time
    said, last_loud = [], clock()
    while True:
        with contextlib.suppress(TimeoutError):
            frame = await asyncio.wait_for(connection.audio_input_track().recv(), QUIET_SEC)
            samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
            if numpy.sqrt((samples.astype(float) ** 2).mean()) > LOUD:
                last_loud = clock()
                said.append(samples)
        if said and clock() - last_loud >= QUIET_SEC:
            voice.say(numpy.concatenate(said))
            said = []


async def main():
    async with aiohttp.ClientSession() as session:
        whatsapp = client.WhatsAppClient(
            whatsapp_token=meta.ACCESS_TOKEN,
            phone_number_id=meta.PHONE_NUMBER_ID,
            session=session,
            ice_servers=[],
            whatsapp_secret=meta.APP_SECRET,
        )

        async def verification(request):
            number = await whatsapp.handle_verify_webhook_request(dict(request.query), meta.VERIFY_TOKEN)
            return web.Response(text=str(number))

        async def webhook(request):
            body, signature = await request.read(), request.headers.get(meta.SIGNATURE)
            wanted = api.WhatsAppWebhookRequest.model_validate_json(body)
            await whatsapp.handle_webhook_request(wanted, parrot, body, signature)
            return web.json_response({"status": "success"})

        app = web.Application()
        app.router.add_get(meta.PATH, verification)
        app.router.add_post(meta.PATH, webhook)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


asyncio.run(main())
