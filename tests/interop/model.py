"""A realtime model that follows a script: a WebSocket server that records what a client sends and says what it is told.

Everything it sends by `send` is valid in the SDK's strict schema, so that nobody is tested against fantasy.
"""

import asyncio
import base64
import collections
import itertools
import json
import time

import numpy
import websockets

import schema

Event = collections.namedtuple("Event", "at body")
RATE = 24_000
CHUNK = RATE // 5  # samples a delta; the real size is the model's business
NO_USAGE = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0}


class Model:
    """Listens on loopback; each connection is a `Session`, in the order they come."""

    def __init__(self, refuse_with=None):
        self.sessions = asyncio.Queue()
        self._refuse_with = refuse_with  # HTTP status and body instead of an upgrade

    async def __aenter__(self):
        self._server = await websockets.serve(self._take, "127.0.0.1", 0, process_request=self._request)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1/realtime"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    async def session(self, seconds=10):
        """The next connection."""
        return await asyncio.wait_for(self.sessions.get(), seconds)

    def _request(self, connection, request):
        if self._refuse_with:
            status, body = self._refuse_with
            return connection.respond(status, body)

    async def _take(self, socket):
        session = Session(socket)
        await self.sessions.put(session)
        await session.record()


class Session:
    """One connection of a client."""

    def __init__(self, socket):
        self.socket, self.path, self.headers = socket, socket.request.path, socket.request.headers
        self.events = []
        self.closed = asyncio.Event()
        self._arrived = asyncio.Event()
        self._numbers = itertools.count(1)

    async def record(self):
        """Keeps every event until the client closes."""
        try:
            async for text in self.socket:
                self.events.append(Event(time.monotonic(), json.loads(text)))
                self._arrived.set()
        except websockets.ConnectionClosed:
            pass
        self.closed.set()

    def of_type(self, kind, after=0):
        """Bodies of one type, from this index of `events` on."""
        return [event.body for event in self.events[after:] if event.body.get("type") == kind]

    async def wait_for(self, kind, after=0, seconds=5):
        """The first event of a type from this index on, or None when none comes in time."""
        until = time.monotonic() + seconds
        while not (found := self.of_type(kind, after)):
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), until - time.monotonic())
            except TimeoutError:
                return None
        return found[0]

    def appended(self, after=0):
        """The caller's audio so far: 24 kHz mono int16."""
        parts = [base64.b64decode(body["audio"]) for body in self.of_type("input_audio_buffer.append", after)]
        return numpy.frombuffer(b"".join(parts), "<i2")

    async def send(self, kind, **fields):
        """One valid event."""
        event = {"type": kind, "event_id": self.new_id("event")} | fields
        complaint = schema.server().complaint(event)
        assert complaint is None, f"this test would send nonsense: {complaint}"
        await self.send_raw(event)

    async def send_raw(self, event):
        """Any event."""
        await self.socket.send(json.dumps(event))

    def new_id(self, prefix):
        return f"{prefix}_{next(self._numbers)}"

    async def open(self, after_sec=0.0):
        """`session.created`, and `session.updated` so long after the client's update; returns that update."""
        default = {"type": "realtime", "model": "gpt-realtime-2.1", "output_modalities": ["audio"]}
        await self.send("session.created", session=default)
        update = await self.wait_for("session.update")
        assert update, "no session.update came"
        await asyncio.sleep(after_sec)
        await self.send("session.updated", session=default | update["session"])
        return update

    async def begin_response(self):
        """A response with one message item; returns their ids."""
        response, item = self.new_id("resp"), self.new_id("item")
        await self.send("response.created", response=_response(response, "in_progress"))
        place = {"response_id": response, "output_index": 0}
        await self.send("response.output_item.added", item=_message(item, "in_progress"), **place)
        await self.send("conversation.item.added", item=_message(item, "in_progress"))
        part = {"type": "audio", "transcript": ""}
        await self.send("response.content_part.added", item_id=item, content_index=0, part=part, **place)
        return response, item

    async def say(self, response, item, samples):
        """Audio of an item, in a burst, as the model does."""
        place = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        for start in range(0, len(samples), CHUNK):
            delta = base64.b64encode(samples[start : start + CHUNK].astype("<i2").tobytes()).decode()
            await self.send("response.output_audio.delta", delta=delta, **place)
        await self.send("response.output_audio_transcript.delta", delta="hello", **place)

    async def end_response(self, response, item, status="completed"):
        """The closing events of a response; `cancelled` as server VAD does it on barge-in."""
        done = "completed" if status == "completed" else "incomplete"
        place = {"response_id": response, "output_index": 0}
        inside = place | {"item_id": item, "content_index": 0}
        await self.send("response.output_audio.done", **inside)
        await self.send("response.output_audio_transcript.done", transcript="hello", **inside)
        await self.send("response.content_part.done", part={"type": "audio", "transcript": "hello"}, **inside)
        await self.send("response.output_item.done", item=_message(item, done), **place)
        details = {"type": "cancelled", "reason": "turn_detected"} if status == "cancelled" else None
        await self.send("response.done", response=_response(response, status, [_message(item, done)], details))

    async def call_function(self, name, arguments):
        """A whole response that is one function call; returns its call id."""
        response, item, call = self.new_id("resp"), self.new_id("item"), self.new_id("call")
        entry = {"id": item, "type": "function_call", "object": "realtime.item", "name": name, "call_id": call}
        entry |= {"status": "completed", "arguments": arguments}
        place = {"response_id": response, "output_index": 0}
        await self.send("response.created", response=_response(response, "in_progress"))
        await self.send("response.output_item.added", item=entry | {"status": "in_progress", "arguments": ""}, **place)
        await self.send("conversation.item.added", item=entry | {"status": "in_progress", "arguments": ""})
        inside = place | {"item_id": item, "call_id": call}
        await self.send("response.function_call_arguments.delta", delta=arguments, **inside)
        await self.send("response.function_call_arguments.done", name=name, arguments=arguments, **inside)
        await self.send("response.output_item.done", item=entry, **place)
        await self.send("response.done", response=_response(response, "completed", [entry]))
        return call


def tone(seconds, hertz=440):
    """A steady tone: what is heard of it can be counted."""
    return (8000 * numpy.sin(2 * numpy.pi * hertz * numpy.arange(int(seconds * RATE)) / RATE)).astype(numpy.int16)


def _response(response, status, output=(), details=None):
    body = {"id": response, "object": "realtime.response", "status": status, "output": list(output)}
    body |= {"output_modalities": ["audio"], "usage": NO_USAGE}
    return body | ({"status_details": details} if details else {})


def _message(item, status):
    body = {"id": item, "type": "message", "object": "realtime.item", "role": "assistant", "status": status}
    return body | {"content": []}
