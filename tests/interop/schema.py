"""The official SDK's own types as a strict judge of events.

The SDK's models accept unknown keys; the live service does not. So its JSON Schema is generated from the installed
package, and unknown keys are forbidden on every object that names its keys.
"""

import functools

import jsonschema
from openai.types import realtime
from pydantic import TypeAdapter


class Judge:
    """Validates events of one direction."""

    def __init__(self, union):
        self.definitions = _strict(TypeAdapter(union).json_schema()).get("$defs", {})
        self.by_type = {}
        for name, definition in self.definitions.items():
            kind = definition.get("properties", {}).get("type", {}).get("const", "")
            if "event_id" in definition.get("properties", {}) and kind:
                self.by_type[kind] = name

    def complaint(self, event):
        """What is wrong with an event, or None."""
        name = self.by_type.get(event.get("type"))
        if name is None:
            return f"there is no event {event.get('type')!r}"
        schema = {"$ref": f"#/$defs/{name}", "$defs": self.definitions}
        error = next(jsonschema.Draft202012Validator(schema).iter_errors(event), None)
        return f"{event['type']}: {_telling(error)}" if error else None


def _telling(error):
    """The error inside the branch of a union that was meant: the one whose `type` fits."""
    while error.context:
        branches = {}
        for inner in error.context:
            branches.setdefault(inner.schema_path[0], []).append(inner)
        meant = [one for one in branches.values() if not any(e.validator == "const" for e in one)]
        error = min(meant or branches.values(), key=len)[0]
    return f"{error.json_path}: {error.message[:200]}"


def _strict(part):
    if isinstance(part, dict):
        if "properties" in part and part.get("type") == "object":
            part["additionalProperties"] = False
        for value in part.values():
            _strict(value)
    elif isinstance(part, list):
        for value in part:
            _strict(value)
    return part


@functools.cache
def client():
    """Of what a client sends."""
    return Judge(realtime.RealtimeClientEvent)


@functools.cache
def server():
    """Of what the model sends."""
    return Judge(realtime.RealtimeServerEvent)
