"""JSON-RPC 2.0 messages, as MCP's streamable HTTP carries them, read in exactly one way.

Refused: members that the specification does not name (a server may know more of them), both forms of one message at
once, ids that are not text or a whole number, ids that stand twice in a batch, and empty batches.
"""

from dataclasses import dataclass
from typing import Final, cast

from rules.content.content import Value, as_doubles
from rules.content.refused import ContentRefused
from rules.content.strict_json import Json

MAX_MESSAGES: Final = 64
"""In one batch."""
_REQUEST: Final = frozenset({"jsonrpc", "id", "method", "params"})
_RESPONSE: Final = frozenset({"jsonrpc", "id", "result", "error"})
_SAID: Final = frozenset({"name", "arguments", "uri"})
"""Of `params`, by which it is judged what MCP is asked for. Servers in Go match names without regard to capitals."""


@dataclass(frozen=True, slots=True)
class Request:
    """Something is asked to be done. Without `id` it is a notification: nobody waits for an answer."""

    id: str | int | None
    method: str
    params: dict[str, Value] | list[Value]
    """With fractions as doubles."""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request that the other side had sent."""

    id: str | int | None


type Message = Request | Response


def read_json_rpc(value: Json | Value) -> tuple[Message, ...]:
    """The messages of a body, one or a batch. Raises `ContentRefused`."""
    if not isinstance(value, list):
        return (_message(value),)
    if not value:
        raise ContentRefused("the JSON-RPC batch is empty")
    if len(value) > MAX_MESSAGES:
        raise ContentRefused(f"the JSON-RPC batch has more than {MAX_MESSAGES} messages")
    messages = tuple(_message(item) for item in value)
    asked = [message.id for message in messages if isinstance(message, Request) and message.id is not None]
    if len(set(asked)) != len(asked):
        raise ContentRefused("two requests of the JSON-RPC batch have the same id")
    return messages


def _message(value: Json | Value) -> Message:
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise ContentRefused("not a JSON-RPC 2.0 message")
    identifier = value.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int | None):
        raise ContentRefused("the JSON-RPC id is neither text nor a whole number")
    if "method" not in value:
        if value.keys() - _RESPONSE or ("result" in value) == ("error" in value) or "id" not in value:
            raise ContentRefused("the JSON-RPC message is neither a request nor a response")
        if identifier is None and "result" in value:
            raise ContentRefused("the JSON-RPC result answers no request: its id is null")
        if "error" in value and not isinstance(value["error"], dict):
            raise ContentRefused("the JSON-RPC error is no object")
        return Response(identifier)
    method, params = value["method"], value.get("params", {})
    if value.keys() - _REQUEST or not isinstance(method, str) or not isinstance(params, dict | list):
        raise ContentRefused("the JSON-RPC request has members or types that the specification does not have")
    if "id" in value and identifier is None:
        raise ContentRefused("the JSON-RPC request has null for its id")
    if any(name not in _SAID and name.casefold() in _SAID for name in params if isinstance(name, str)):
        raise ContentRefused("the JSON-RPC request has a parameter that some readers take for name, arguments or uri")
    return Request(identifier, method, cast("dict[str, Value] | list[Value]", as_doubles(params)))
