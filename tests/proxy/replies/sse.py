"""Another reader of event streams, written from the standard's own algorithm (WHATWG HTML 9.2.6), for comparison."""

import json
from dataclasses import dataclass, field


@dataclass
class Reader:
    """What an EventSource makes of a whole stream."""

    events: list[tuple[str, str, str]] = field(default_factory=list)
    """Type, data and last event ID of each event that is dispatched."""
    retry: int | None = None


def read(stream: bytes) -> Reader:
    text = stream.decode("utf-8", "replace")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    *lines, _incomplete = text.split("\n")
    found = Reader()
    data, kind, last = "", "", ""
    for line in lines:
        if line == "":
            if data:
                found.events.append((kind or "message", data.removesuffix("\n"), last))
            data, kind = "", ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                data += value + "\n"
            case "event":
                kind = value
            case "id" if "\x00" not in value:
                last = value
            case "retry" if value.isascii() and value.isdigit():
                found.retry = int(value)
    return found


def names_in(data: str | bytes) -> list[str]:
    """The names of the tools that a liberal client finds in a message or a batch; none in what is no JSON."""
    try:
        message = json.loads(data)
    except ValueError:
        return []
    names = []
    for one in message if isinstance(message, list) else [message]:
        if isinstance(one, dict):
            for result in (
                member for name, member in one.items() if name.lower() == "result" and isinstance(member, dict)
            ):
                lists = [
                    member for name, member in result.items() if name.lower() == "tools" and isinstance(member, list)
                ]
                names += [
                    tool["name"] for found in lists for tool in found if isinstance(tool, dict) and "name" in tool
                ]
    return names
