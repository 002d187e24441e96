"""Who a message goes to, read in exactly one way (RFC 5322, RFC 4648 section 5).

Refused is what mail servers and clients are known to read differently: comments, quoted local parts, groups, source
routes, encoded words (some readers decode before they split), a field that stands twice, a header whose lines end in
two ways, and whatever is not ASCII in one.
"""

import base64
import binascii
import re
import unicodedata
from typing import Final

from rules.content.refused import ContentRefused

MAX_MESSAGE: Final = 1024 * 1024
"""Bytes; as many as a body that is held."""
MAX_RECIPIENTS: Final = 2000
MAX_LINE: Final = 998
"""RFC 5322 section 2.1.1."""
MAX_HEADER: Final = 64 * 1024
"""Bytes of the header section with the empty line that ends it."""
MAX_FIELDS: Final = 1000
# Without % and !, by which old relays route on.
_ATOM: Final = r"[A-Za-z0-9#$&'*+/=?^_`{|}~-]{1,64}"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM}){{0,16}}@{_LABEL}(?:\.{_LABEL}){{1,16}}", re.ASCII)
_NAMED: Final = re.compile(r'(?:"([^"\\<>@]{0,256}+)"[ ]*+|([^"\\<>()@,:;\[\]]{0,256}+))<([^<> ]*+)>')
_MAILBOX: Final = re.compile(r'(?:"[^"\\]*+"|[^",]++)++')
_BASE64: Final = re.compile(r"[A-Za-z0-9_-]*+={0,2}", re.ASCII)
_END: Final = re.compile(rb"\r?\n\r?\n")
MAX_ADDRESS: Final = 640
"""Characters, with its display name."""
_FIELD: Final = re.compile(r"([!-9;-~]{1,64}):[ \t]*(.*)", re.ASCII)
_OF_RECIPIENTS: Final = frozenset({"to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc"})
_ONCE: Final = _OF_RECIPIENTS | {"from", "sender", "reply-to", "subject", "date", "message-id"}


def read_address(text: str) -> str:
    """The one address of `ana@acme.example` or `Ana <ana@acme.example>`, in lower case. Raises `ContentRefused`."""
    text = text.replace("\t", " ").strip(" ")
    # Compatibility forms of < and @ become themselves where a reader normalises first.
    if len(text) > MAX_ADDRESS or not text.isprintable() or "=?" in text or _has_disguise(text):
        raise ContentRefused("a mail address that is too long, or has characters that are read differently")
    named = _NAMED.fullmatch(text)
    address = text if named is None else named[3]
    local, _, domain = address.rpartition("@")
    if len(address) > 254 or len(local) > 64 or _ADDRESS.fullmatch(address) is None:
        raise ContentRefused("a mail address that is not written in its plainest form")
    if domain.rpartition(".")[2].isdigit():
        raise ContentRefused("a mail address at a number in place of a domain")
    return address.lower()


def _has_disguise(text: str) -> bool:
    return not text.isascii() and any(
        character in unicodedata.normalize("NFKC", other)
        for other in text
        if not other.isascii()
        for character in '<>@,;:"()'
    )


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
    if _BASE64.fullmatch(raw) is None:
        raise ContentRefused("the message is not base64url")
    bare = raw.rstrip("=")
    try:
        data = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        raise ContentRefused("the message is not base64url") from None
    # Bits behind the last byte, and padding of another length, are an error to some readers.
    padded = base64.urlsafe_b64encode(data).decode("ascii")
    if len(data) > MAX_MESSAGE or raw not in {padded, padded.rstrip("=")}:
        raise ContentRefused("the message is not base64url, or is too large to be read")
    end = _END.search(data, 0, MAX_HEADER)
    if end is None and len(data) > MAX_HEADER:
        raise ContentRefused("the message's header is too large to be read")
    head = data if end is None else data[: end.start()]
    ends = head.count(b"\r\n")
    if head.count(b"\r") != ends or (ends and head.count(b"\n") != ends):
        raise ContentRefused("the message's header has a carriage return alone, or lines that end in two ways")
    if end is not None and ends and end[0] != b"\r\n\r\n":
        raise ContentRefused("the message's header does not end as its lines do")
    head = head.replace(b"\r\n", b"\n").removesuffix(b"\n")
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
        if len(fields) == MAX_FIELDS:
            raise ContentRefused(f"the message's header has more than {MAX_FIELDS} fields")
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
        if value[match.end() : match.end() + 1] not in ("", ","):
            raise ContentRefused("the message has a quote among its recipients that does not end plainly")
        parts.append(match[0])
        at = match.end() + 1
        if len(parts) > MAX_RECIPIENTS:
            raise ContentRefused(f"the message has more than {MAX_RECIPIENTS} recipients")
        if match.end() == len(value):
            return [read_address(part) for part in parts]
