"""Who a message goes to, read in exactly one way (RFC 5322, RFC 4648 section 5).

Refused is what mail servers and clients are known to read differently: comments, quoted local parts, groups, source
routes, encoded words in an address, a field that stands twice, and whatever is not ASCII.
"""

import base64
import binascii
import re
from typing import Final

from rules.content.refused import ContentRefused

MAX_MESSAGE: Final = 1024 * 1024
"""Bytes; as many as a body that is held."""
MAX_RECIPIENTS: Final = 2000
MAX_LINE: Final = 998
"""RFC 5322 section 2.1.1."""
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM}){{0,16}}@{_LABEL}(?:\.{_LABEL}){{1,16}}", re.ASCII)
_NAMED: Final = re.compile(
    r'(?:"([^"\\<>@\x00-\x1f\x7f]{0,256})"|([^"\\<>()@,:;\[\]\x00-\x1f\x7f]{0,256}))[ \t]*<([^<>]*)>', re.ASCII
)
_MAILBOX: Final = re.compile(r'(?:"[^"\\\r\n]*"|[^",])+', re.ASCII)
_FIELD: Final = re.compile(r"([!-9;-~]{1,64}):[ \t]*(.*)", re.ASCII)
_OF_RECIPIENTS: Final = frozenset({"to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc"})
_ONCE: Final = _OF_RECIPIENTS | {"from", "sender", "reply-to", "subject", "date", "message-id"}


def read_address(text: str) -> str:
    """The one address of `ana@acme.example` or `Ana <ana@acme.example>`, in lower case. Raises `ContentRefused`."""
    text = text.strip(" \t")
    named = _NAMED.fullmatch(text) if text.endswith(">") else None
    if named is not None and "=?" in (named[1] or named[2] or ""):
        named = _without_encoded_word(named)
    address = text if named is None else named[3]
    if len(address) > 254 or _ADDRESS.fullmatch(address) is None:
        raise ContentRefused("a mail address that is not written in its plainest form")
    return address.lower()


def _without_encoded_word(named: "re.Match[str]") -> "re.Match[str]":
    # RFC 2047 section 5 (3): in a name an encoded word stands alone or beside others; inside of quotes it is none.
    if named[1] is not None:
        raise ContentRefused("a mail address with an encoded word inside of quotes")
    return named


def read_recipients(raw: str) -> tuple[str, ...]:
    """All addresses that a message in base64url is sent to, in their order, each once. Raises `ContentRefused`.

    Its body is not looked at.
    """
    found: dict[str, None] = {}
    seen: set[str] = set()
    for name, value in _fields(_header(raw)):
        if name in _ONCE and name in seen:
            raise ContentRefused("the message has a field twice that stands in it once")
        seen.add(name)
        if name in _OF_RECIPIENTS:
            for address in _addresses(value):
                found[address] = None
            if len(found) > MAX_RECIPIENTS:
                raise ContentRefused(f"the message has more than {MAX_RECIPIENTS} recipients")
    if not found:
        raise ContentRefused("the message has no recipient")
    return tuple(found)


def _header(raw: str) -> str:
    """The header section, in ASCII, with its lines apart by LF."""
    if len(raw) > MAX_MESSAGE * 4 // 3 + 4:
        raise ContentRefused("the message is too large to be read")
    try:
        padded = raw.rstrip("=")
        data = base64.b64decode((padded + "=" * (-len(padded) % 4)).encode("ascii"), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ContentRefused("the message is not base64url") from None
    data = data.replace(b"\r\n", b"\n")
    if b"\r" in data or data.startswith(b"\n"):
        raise ContentRefused("the message has a carriage return alone, or no header")
    head, blank, _ = data.partition(b"\n\n")
    if not blank:
        head = head.removesuffix(b"\n")
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        raise ContentRefused("the message's header is not ASCII") from None
    if "\0" in text or any(len(line) > MAX_LINE for line in text.split("\n")):
        raise ContentRefused("the message's header has a NUL or a line that is too long")
    return text


def _fields(header: str) -> list[tuple[str, str]]:
    """Names in lower case and unfolded values."""
    fields: list[tuple[str, list[str]]] = []
    for line in header.split("\n"):
        if line[:1] in (" ", "\t"):
            if not fields or not line.strip(" \t"):
                raise ContentRefused("the message's header has a line that continues none, or nothing")
            fields[-1][1].append(line)
            continue
        match = _FIELD.fullmatch(line)
        if match is None:
            raise ContentRefused("the message's header has a line that is no field")
        fields.append((match[1].lower(), [match[2]]))
    return [(name, "".join(parts)) for name, parts in fields]


def _addresses(value: str) -> list[str]:
    if not value.strip(" \t"):
        raise ContentRefused("the message has a field of recipients that names none")
    if value.count('"') % 2:
        raise ContentRefused("the message has a quote that does not end")
    parts: list[str] = []
    at = 0
    while True:
        match = _MAILBOX.match(value, at)
        if match is None:
            raise ContentRefused("the message has an empty place among its recipients")
        parts.append(match[0])
        at = match.end() + 1
        if len(parts) > MAX_RECIPIENTS:
            raise ContentRefused(f"the message has more than {MAX_RECIPIENTS} recipients")
        if match.end() == len(value):
            return [read_address(part) for part in parts]
