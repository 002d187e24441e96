"""The lists of tools in an answer's messages, with the tools that may stay.

A list of tools is known by its shape, a result with `tools`, and not by what was asked: the same answer also comes on
a stream that is resumed, and a server may send it unasked. A shape that some clients would take for such a list and
others would not is refused, whole: names that differ from `result`, `tools` or `name` by capitals alone (Go reads them
as the same), and tools without a name.
"""

from collections.abc import Callable
from typing import Final

from proxy.replies.definition import definition_digest
from proxy.replies.reading import Number, Value, read_value, write_value
from proxy.replies.reply_filter import ReplyRefused
from rules.content.refused import ContentRefused
from rules.content.strict_json import check_text, has_odd_text

type May = Callable[[str, str], bool]
"""Whether a tool of this name, with this digest of its definition, may be shown."""

MAX_NAME: Final = 256
"""Characters of a tool's name; the specification has 128."""


def filtered(data: bytes, may: May) -> bytes | None:
    """The message or batch with the tools that may stay; None where nothing changes. Raises `ReplyRefused`."""
    try:
        value = read_value(data)
    except ContentRefused as error:
        raise ReplyRefused(error.detail) from None
    odd = has_odd_text(data)
    changed = False
    for message in value if isinstance(value, list) else [value]:
        if isinstance(message, list):
            raise ReplyRefused("a batch inside a batch")
        if isinstance(message, dict):
            try:
                changed |= _filter_message(message, may, odd)
            except ContentRefused as error:
                raise ReplyRefused(error.detail, _id_of(message)) from None
    return write_value(value).encode("ascii") if changed else None


def has_tools(data: bytes) -> bool:
    """True where any message in it has a list of tools. Raises `ReplyRefused` for what cannot be told."""
    return filtered(data, lambda _name, _digest: False) is not None


def _filter_message(message: dict[str, Value], may: May, odd: bool) -> bool:
    result = _member(message, "result")
    if not isinstance(result, dict):
        return False
    tools = _member(result, "tools")
    if tools is None and "tools" not in result:
        return False
    if not isinstance(tools, list):
        raise ContentRefused("a result whose tools are not a list")
    kept = [tool for tool in tools if _may_stay(tool, may, odd)]
    if len(kept) == len(tools):
        return False
    result["tools"] = kept
    return True


def _may_stay(tool: Value, may: May, odd: bool) -> bool:
    if not isinstance(tool, dict):
        raise ContentRefused("a tool that is not an object")
    name = _member(tool, "name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise ContentRefused("a tool without a name")
    if odd:
        _check_tool(tool)
    return may(name, definition_digest(tool))


def _check_tool(tool: Value) -> None:
    """No text that readers cut short, or that has no bytes; checked as in what agents send."""
    match tool:
        case dict():
            for name, member in tool.items():
                check_text(name)
                _check_tool(member)
        case list():
            for item in tool:
                _check_tool(item)
        case str():
            check_text(tool)
        case _:
            pass


def _member(members: dict[str, Value], name: str) -> Value:
    """The member of that name, and no other that a reader could take for it."""
    for other in members:
        if other != name and other.casefold() == name:
            raise ContentRefused(f"a name that differs from {name} by capitals alone")
    return members.get(name)


def _id_of(message: dict[str, Value]) -> str | None:
    answered = message.get("id")
    return write_value(answered) if isinstance(answered, str | Number) else None
