"""Content-Type: which reader a body is for (RFC 9110 section 8.3.1).

Frameworks disagree about a field that is given twice, about parameters without quotes that contain special characters,
and about charsets; each disagreement lets a rule read a form where the origin reads JSON.
"""

import re
from dataclasses import dataclass
from typing import Final

from rules.content.refused import ContentRefused

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE: Final = re.compile(rf"({_WORD})/({_WORD})")
_PARAMETER: Final = re.compile(rf"[ \t]*;[ \t]*({_WORD})=(?:({_WORD})|\"([\x21\x23-\x5b\x5d-\x7e \t]*)\")")
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
"""US-ASCII is its subset, and what is not ASCII under that name is refused with the bytes."""
MAX_LENGTH: Final = 256


@dataclass(frozen=True, slots=True)
class MediaType:
    """A Content-Type in its normalised form."""

    essence: str
    """`type/subtype` in lower case."""
    parameters: tuple[tuple[str, str], ...] = ()
    """Names in lower case, as ordered in the field."""

    def parameter(self, name: str) -> str | None:
        """The parameter's value."""
        return next((value for known, value in self.parameters if known == name), None)

    @property
    def is_json(self) -> bool:
        """True for JSON under any name (RFC 6839 section 3.1)."""
        return self.essence == "application/json" or self.essence.endswith("+json")

    @property
    def is_form(self) -> bool:
        """True for what an HTML form sends without files."""
        return self.essence == "application/x-www-form-urlencoded"

    @property
    def is_multipart_form(self) -> bool:
        """True for what an HTML form sends with files."""
        return self.essence == "multipart/form-data"


def read_media_type(raw: bytes) -> MediaType:
    """The one media type that a field's value names. Raises `ContentRefused`.

    No charset but UTF-8 is accepted: a body in another one is other text to an origin that ignores the parameter.
    """
    if len(raw) > MAX_LENGTH:
        raise ContentRefused("Content-Type is too long")
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise ContentRefused("Content-Type is not ASCII") from None
    match = _TYPE.match(text)
    if match is None:
        raise ContentRefused("Content-Type is not a media type")
    parameters: dict[str, str] = {}
    at = match.end()
    while at < len(text):
        parameter = _PARAMETER.match(text, at)
        if parameter is None:
            raise ContentRefused("Content-Type has something behind the media type that is no parameter")
        name = parameter[1].lower()
        if name in parameters:
            raise ContentRefused("Content-Type has a parameter twice")
        parameters[name] = parameter[2] if parameter[2] is not None else parameter[3]
        at = parameter.end()
    found = MediaType(f"{match[1]}/{match[2]}".lower(), tuple(parameters.items()))
    charset = found.parameter("charset")
    if charset is not None and charset.lower() not in _UTF8:
        raise ContentRefused("the charset is not UTF-8")
    return found
