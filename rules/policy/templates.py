"""Path templates, and the one form in which a path is compared with them.

A path is compared segment by segment, case-sensitively, each segment percent-decoded exactly once (RFC 3986 section
2.4): `/caf%C3%A9`, `/caf%c3%a9` and `/c%61f%C3%A9` are one path, so an encoding cannot slip past a deny. A path that
decodes to something with another structure than it shows (an encoded slash, a dot segment, a control character) has no
such form, and a call with one is denied.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from rules.policy.invalid import ValueInvalid

MAX_SEGMENTS: Final = 32
"""Of a template. The deepest documented REST paths (Microsoft Graph) have about 14."""

_PLAIN: Final = re.compile(r"/(?:[A-Za-z0-9_~!$&'()*+,:@=;-][A-Za-z0-9_~!$&'()*+,:@=;.-]*(?:/|\Z))*")
"""The common path: nothing encoded, no empty segment but the last, no segment that starts with a dot."""
# RFC 3986 section 3.3, pchar
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9_~!$&'()*+,:@=;.-]|%[0-9A-Fa-f]{2})*")
_PARAMETER: Final = re.compile(r"\{[a-z][a-z0-9_]{0,31}\}", re.ASCII)


class Parameter:
    """Stands for `{name}` in a template's segments."""

    def __repr__(self) -> str:
        return "PARAMETER"


PARAMETER: Final = Parameter()


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed path template."""

    text: str
    segments: tuple[str | Parameter, ...]
    """Decoded literals and `PARAMETER`."""
    rest: bool
    """Whether it ends in `/**`: what stands before it, and everything below."""
    parameters: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    """Names of the parameters, and which segment each is."""

    @property
    def rank(self) -> tuple[int, ...]:
        """Orders templates that match one path: from the left, a literal before a parameter before the rest."""
        return (*(1 if segment is PARAMETER else 0 for segment in self.segments), *((2,) if self.rest else ()))

    def covers(self, segments: tuple[str, ...]) -> bool:
        """Whether a path with these segments fits."""
        if len(segments) < len(self.segments) or (len(segments) > len(self.segments) and not self.rest):
            return False
        return all(
            found != "" if wanted is PARAMETER else found == wanted
            for wanted, found in zip(self.segments, segments, strict=False)
        )


@lru_cache(maxsize=4)  # the guards of one decision ask for the same path
def normal_segments(path: str) -> tuple[str, ...] | None:
    """The decoded segments of a call's path, a character for each byte; None when the path has no normal form."""
    if _PLAIN.fullmatch(path):
        return tuple(path[1:].split("/"))
    if not path.startswith("/"):
        return None
    parts = path[1:].split("/")
    segments: list[str] = []
    for part in parts:
        if not _SEGMENT.fullmatch(part):
            return None
        segment = unquote_to_bytes(part).decode("latin-1")
        if segment in (".", "..") or any(c < " " or c in "/\\\x7f" for c in segment):
            return None
        segments.append(segment)
    if "" in segments[:-1]:
        return None
    return tuple(segments)


def parse_template(value: str) -> Template:
    """The template that `/api/v2/tickets/{id}` or `/repos/acme/**` writes; ValueInvalid with the fix otherwise."""
    if not value.startswith("/"):
        raise ValueInvalid(
            "a path starts with a slash",
            f"write /{value}" if value.isascii() and value.isprintable() else "start it with /",
        )
    if "?" in value or "#" in value:
        raise ValueInvalid("a path without query and fragment", "leave out ? or # and what follows; rules see the path")
    if value == "/**":
        return Template(value, (), rest=True)
    rest = value.endswith("/**")
    parts = (value.removesuffix("/**") if rest else value)[1:].split("/")
    if len(parts) > MAX_SEGMENTS:
        raise ValueInvalid(f"more than {MAX_SEGMENTS} segments", "shorten it with /** at the end")
    names: dict[str, int] = {}
    segments: list[str | Parameter] = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if _PARAMETER.fullmatch(part):
            if part[1:-1] in names:
                raise ValueInvalid(f"{part} stands twice", "give each segment a name of its own")
            names[part[1:-1]] = index
            segments.append(PARAMETER)
        else:
            segments.append(_literal(part, may_be_empty=last and not rest))
    return Template(value, tuple(segments), rest, tuple(names.items()))


def check_endpoint(value: str) -> str:
    """One path, as it stands. Raises `ValueInvalid`."""
    template = parse_template(value)
    if template.rest or template.parameters:
        raise ValueInvalid("not one path", "write it out, as in /mcp")
    return template.text


def _literal(part: str, *, may_be_empty: bool) -> str:
    if part == "" and not may_be_empty:
        raise ValueInvalid("an empty segment", "leave out one of the slashes; a path with // is never forwarded")
    if "{" in part or "}" in part:
        raise ValueInvalid("{name} stands for one whole segment", "write it alone between slashes, in lower case: {id}")
    if "**" in part:
        raise ValueInvalid("** stands only at the end, behind a slash", "write /prefix/**")
    if part == "*":
        raise ValueInvalid("there is no * segment", "write {name} for one segment, or /** at the end for any rest")
    if not _SEGMENT.fullmatch(part):
        raise ValueInvalid("a character that stands in no path", f"percent-encode it: {quote(part, safe='%')}")
    normal = normal_segments(f"/{part}")
    if normal is None:
        raise ValueInvalid("a segment that is never forwarded", "leave out dot segments and encoded / \\ or controls")
    return normal[0]
