"""The first bytes an agent sends to its relay: read strictly, re-written in exactly one place.

The relay judges nothing but its own password. Everything else in the head goes to the door byte for byte, and the door
parses it with the product's strict parser; so the only thing that must not be ambiguous here is what carries the
password (`control.relay_password`). A head in which that could be read two ways is refused.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from enum import Enum

MAX_HEAD_BYTES = 32_768
"""The door's own bound on a header section; a longer one would be refused there anyway."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# RFC 9112 section 3: method SP request-target SP HTTP-version, one space each. 8-bit and control characters never.
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) (HTTP/1\.[01])\Z")


class HeadRefused(Exception):
    """The agent's head cannot be read in one way; answer 400 and close."""


class Form(Enum):
    """What a request is by the form of its target (RFC 9112 section 3.2), and so where its password may stand."""

    TUNNEL = "CONNECT"
    ABSOLUTE = "absolute form: plain http through a proxy"
    BASE_URL = "origin form: a request to the base-URL door"


@dataclass(frozen=True, slots=True)
class Line:
    """One header line."""

    name: bytes
    """In lower case."""
    value: bytes
    """Without the white space around it."""
    raw: bytes
    """As received."""


@dataclass(frozen=True, slots=True)
class RelayHead:
    """A request head as the relay understands it."""

    form: Form
    method: bytes
    target: bytes
    version: bytes
    lines: tuple[Line, ...]


def parse_relay_head(raw: bytes) -> RelayHead:
    """The head (without its final empty line) is understood. Raises `HeadRefused`; the caller answers 400."""
    request_line, *lines = raw.split(b"\r\n")
    match = _REQUEST_LINE.match(request_line)
    if match is None:
        raise HeadRefused("the request line is malformed")
    method, target, version = match.groups()
    fields: list[Line] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        # A name that is no token includes the empty one, obs-fold (a line that starts with a space, RFC 9112
        # section 5.2) and a space before the colon: each is a way to hide a second password line.
        if not colon or _TOKEN.match(name) is None or b"\n" in line or b"\r" in line or b"\0" in line:
            raise HeadRefused("a header line is malformed")
        fields.append(Line(name.lower(), value.strip(b" \t"), line))
    return RelayHead(_form(method, target), method, target, version, tuple(fields))


def _form(method: bytes, target: bytes) -> Form:
    if method == b"CONNECT":
        return Form.TUNNEL
    if target.lower().startswith(b"http://"):
        return Form.ABSOLUTE
    if target.startswith(b"/"):
        return Form.BASE_URL
    raise HeadRefused("a relay takes CONNECT, absolute http and /to/ requests only")


def decode_basic(value: bytes) -> bytes | None:
    """`user:password` of a Basic credential (RFC 7617); None when it is not one."""
    scheme, _, encoded = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(encoded.strip(b" "), validate=True)
    except binascii.Error:
        return None


def encode_basic(account: str, password: bytes) -> bytes:
    """The value of a Basic credential (RFC 7617)."""
    return b"Basic " + base64.b64encode(account.encode("ascii") + b":" + password)


def for_the_door(head: RelayHead, authorization: bytes) -> bytes:
    """The head as the door gets it: what carried the password is gone, the credential is there.

    A request outside of a tunnel is the only one on its connection (`Connection: close`), because the relay pipes
    blindly after the head and could not exchange the password in a second one.
    """
    lines = [b" ".join((head.method, head.target, head.version)), *(line.raw for line in head.lines)]
    lines.append(b"Proxy-Authorization: " + authorization)
    if head.form is not Form.TUNNEL:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"
