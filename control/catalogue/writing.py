"""A catalogue file as text, for people to review: one line a tool, in the plain YAML that policies are written in."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rules.catalogue.document import ServiceDocument, known_service
from rules.catalogue.effect import Effect
from rules.policy.reading import MAX_FILE_BYTES, read

_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*", re.ASCII)
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


@dataclass(frozen=True, slots=True)
class Draft:
    """A tool, before it is in a file."""

    name: str
    effect: Effect
    calls: tuple[str, ...] = ()
    definition: str | None = None


def catalogue_text(
    service: str,
    hosts: Iterable[str],
    protocol: str,
    tools: Iterable[Draft],
    comments: Iterable[str],
    endpoint: str | None = None,
) -> str:
    """The file. It is read back and is valid. Raises `ValueInvalid` where the parts do not fit together, and
    pydantic's `ValidationError`."""
    lines = [f"# {comment}" for comment in comments]
    lines += ["catalogue: 1", f"service: {_scalar(service)}"]
    lines.append(f"hosts: [{', '.join(map(_quoted, hosts))}]")
    lines += [f"protocol: {protocol}"] if protocol != "rest" else []
    lines += [f"endpoint: {_quoted(endpoint)}"] if endpoint is not None else []
    lines.append("tools:")
    for tool in tools:
        members = []
        if tool.calls:
            written = [_quoted(call) for call in tool.calls]
            members.append(f"call: {written[0] if len(written) == 1 else f'[{", ".join(written)}]'}")
        members.append(f"effect: {tool.effect}")
        members += [f"definition: {_quoted(tool.definition)}"] if tool.definition else []
        lines.append(f"  {_scalar(tool.name)}: {{{', '.join(members)}}}")
    text = "\n".join(lines) + "\n"
    check_text(text)
    return text


def check_text(text: str) -> ServiceDocument:
    """What a policy's folder makes of the file. Raises `ValueError` for a file that it would refuse."""
    raw = text.encode("ascii")
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"the file would be larger than the {MAX_FILE_BYTES} bytes that a policy's file may have")
    reading, errors = read(raw, "catalogue.yaml")
    if reading is None or errors:
        raise ValueError("; ".join(map(str, errors)))
    document = ServiceDocument.model_validate(reading.data)
    known_service(document)
    return document


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise ValueError("only printable ASCII stands in a catalogue's file")
    return json.dumps(text)
