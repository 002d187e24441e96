"""Canonical serialisation: what was judged is what is sent, whatever clothes it came in.

A request head is written anew: request line, Host, the agent's remaining fields in their order under lower-case
names, then framing, then (in `wire` alone) the secret. So the head that an intent commits to, `public`, is byte for
byte what the origin receives less one line.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from proxy.http.errors import RequestRefused
from proxy.http.headers import (
    DROPPED_PREFIXES,
    FIELD_VALUE,
    FORWARDING,
    FRAMING,
    HOP_BY_HOP,
    NOT_NOMINABLE,
    TOKEN,
    Headers,
    canonical_name,
    connection_options,
    has_twin,
    is_security_relevant,
)
from proxy.http.response_head import ResponseHead
from rules.codes import Code

# `close` is a connection option and no field; listed here, the usual Connection field costs nothing.
_NOT_FORWARDED: Final = HOP_BY_HOP | FORWARDING | FRAMING | {b"close"}
# RFC 7838: Alt-Svc would send the agent's next request around us. Proxy-* and Exeat-* of an origin are not its to say.
_NOT_RETURNED: Final = HOP_BY_HOP | {b"content-length", b"transfer-encoding", b"alt-svc"}
_RETURNED_PREFIXES: Final = (b"proxy-", b"exeat-")

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}


type Rewrite = Callable[[bytes, bytes], bytes | None]
"""The value of a response's field for the agent, by its lower-case name; None drops the field."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request head ready to send."""

    public: bytes
    """The whole head without the secret's field, with its empty line: what the intent's digest covers."""

    def wire(self, secret_header: tuple[bytes, bytes] | None = None) -> bytes:
        """The head as it leaves: `public` with the secret's field before the empty line. Never logged, never digested.

        Raises ValueError for a value that is no field value; a Presentation has checked it before.
        """
        if secret_header is None:
            return self.public
        name, value = secret_header
        # The error must not show the value: it is the secret.
        if TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value) is None:
            raise ValueError("the secret cannot be presented in a header field")
        return b"%b%b: %b\r\n\r\n" % (self.public[:-2], name.lower(), value)


def emit_head(
    method: str,
    path: str,
    query: str,
    host: bytes,
    headers: Headers,
    *,
    content_length: int | None,
    chunked: bool = False,
    remove: frozenset[bytes] = frozenset(),
    add: tuple[tuple[bytes, bytes], ...] = (),
) -> Head:
    """The canonical head of an admitted request.

    `path`, `query` and `host` are normalised (`proxy.http.target`), `headers` come from a RequestHead. `remove` holds
    the lower-case names that the secret's presentation owns: the agent's copies and their twins (`X_Api_Key`)
    disappear. `add` are fields of ours that are no secret. `content_length` None without `chunked` means no body.

    Raises RequestRefused where Connection lists a field that must reach the origin.
    """
    out = [method.encode("ascii"), b" ", path.encode("ascii")]
    if query:
        out += (b"?", query.encode("ascii"))
    out += (b" HTTP/1.1\r\nhost: ", host, b"\r\n")
    gone = _not_forwarded(remove)
    nominated = _nominated(headers, remove)
    if not nominated <= gone:
        gone |= nominated
    for name, value in headers:
        if name in gone or name.startswith(DROPPED_PREFIXES) or (has_twin(name) and canonical_name(name) in remove):
            continue
        out += (name, b": ", value, b"\r\n")
    for name, value in add:
        out += (name, b": ", value, b"\r\n")
    if chunked:
        out.append(b"transfer-encoding: chunked\r\n")
    elif content_length is not None:
        out.append(b"content-length: %d\r\n" % content_length)
    out.append(b"\r\n")
    return Head(b"".join(out))


@lru_cache(maxsize=256)
def _not_forwarded(remove: frozenset[bytes]) -> frozenset[bytes]:
    return _NOT_FORWARDED | remove


def _nominated(headers: Headers, remove: frozenset[bytes]) -> frozenset[bytes]:
    """The names that Connection fields list: they end here (RFC 9110 section 7.6.1), unless that would disarm
    something."""
    names: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection":
            names |= connection_options(value) or frozenset()
    if names and (names & NOT_NOMINABLE or names & remove or _twin_of_guarded(names, remove)):
        raise RequestRefused(Code.MALFORMED_REQUEST, "Connection lists a field that is not about the connection")
    return names


def _twin_of_guarded(names: frozenset[bytes], remove: frozenset[bytes]) -> bool:
    twins = [canonical_name(name) for name in names if has_twin(name)]
    return any(twin in remove or is_security_relevant(twin) for twin in twins)


def emit_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body. Empty data gives nothing: a zero chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


LAST_CHUNK: Final = b"0\r\n\r\n"


def emit_response_head(
    head: ResponseHead,
    *,
    content_length: int | None,
    chunked: bool = False,
    close: bool = False,
    add: Iterable[tuple[bytes, bytes]] = (),
    rewrite: Rewrite | None = None,
    drop: frozenset[bytes] = frozenset(),
) -> bytes:
    """The origin's response head as the agent receives it; framing is ours alone.

    `content_length` where the length is known, else `chunked`; both unset only for a response without a body (204,
    304). For HEAD and 304 pass the origin's own length. `close` announces that the connection ends after this response.
    Server is kept: it says who answered. Connection-nominated fields end here. `rewrite` gives a field's value for the
    agent, or None to drop it. Fields named in `drop`, lower-case, end here as well.
    """
    out = [_status_line(head)]
    nominated = drop
    for name, value in head.headers:
        if name == b"connection":
            nominated |= connection_options(value) or frozenset()
    for name, value in head.headers:
        if name in _NOT_RETURNED or name in nominated or name.startswith(_RETURNED_PREFIXES):
            continue
        shown = value if rewrite is None else rewrite(name, value)
        if shown is not None:
            out += (name, b": ", shown, b"\r\n")
    for name, value in add:
        out += (name, b": ", value, b"\r\n")
    if close:
        out.append(b"connection: close\r\n")
    if head.status == 204:
        pass  # RFC 9110 section 8.6, RFC 9112 section 6.1: neither field, whatever the origin said
    elif chunked:
        out.append(b"transfer-encoding: chunked\r\n")
    elif content_length is not None:
        out.append(b"content-length: %d\r\n" % content_length)
    out.append(b"\r\n")
    return b"".join(out)


def _status_line(head: ResponseHead) -> bytes:
    """The registered phrase; an origin's own phrase says nothing a program may use (RFC 9112 section 4)."""
    return _STATUS_LINES.get(head.status) or b"HTTP/1.1 %d \r\n" % head.status
