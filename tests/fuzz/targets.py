"""What must hold of the two parsers for any bytes. A fuzzer calls these; whatever they raise is a finding.

`fuzz_request(data)` and `fuzz_response(data)`: the bytes are read at once and in two splits, which the bytes decide
themselves, so that a finding is its bytes and nothing else.

- Nothing but `RequestRefused` and `ResponseRefused` is raised, by the parsers, the targets' reading and the emitter.
- The split changes nothing: the same messages, the same refusal.
- What was accepted, an independent strict reader (h11) reads as the same message, ending at the same byte.
- What is emitted reads back as what was judged, here and by h11, and is its own normal form.
- Nothing emitted holds a control character in its head, or a field that is ours to say.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import h11

from proxy.http.emit import emit_head, emit_response_head
from proxy.http.errors import RequestRefused, ResponseRefused
from proxy.http.headers import CREDENTIALS
from proxy.http.limits import HttpLimits
from proxy.http.request import RequestHead, RequestParser
from proxy.http.response import ResponseHead, ResponseParser
from proxy.http.target import Target, format_authority, parse_connect_target, resolve_target

LIMITS = HttpLimits(max_body_bytes=65_536, max_pipelined_bytes=65_536)
OWN = HttpLimits(max_header_bytes=65_536, max_header_count=110, max_response_header_count=210)
"""For reading back what was emitted: Host, framing, the secret and our own fields come on top of what was read."""
_MAX_MESSAGES = 8
_NEVER_SENT = (b"proxy-", b"x-forwarded-", b"exeat-")


class Finding(AssertionError):
    """A property does not hold for some bytes."""


def _hold(condition: bool, what: str) -> None:
    if not condition:
        raise Finding(what)


@dataclass(frozen=True, slots=True)
class _Read[Head]:
    """One reading of some bytes: whole messages, and how it ended."""

    messages: tuple[tuple[Head, bytes], ...]
    ended: str
    """The refusal, or whether a message was left incomplete."""


def pieces(data: bytes, seed: bytes) -> Iterable[bytes]:
    """The bytes in pieces of 1 to 64, the same for the same bytes."""
    lengths = hashlib.sha256(seed + data).digest()
    at = turn = 0
    while at < len(data):
        length = 1 + lengths[turn % 32] % (64 if turn % 3 else 4)
        yield data[at : at + length]
        at += length
        turn += 1


# --- requests ---------------------------------------------------------------------------------------------------------


def read_requests(parts: Iterable[bytes], *, connect: bool, limits: HttpLimits = LIMITS) -> _Read[RequestHead]:
    """Every whole request in the parts, and the refusal or the rest."""
    parser = RequestParser(limits, connect=connect)
    messages: list[tuple[RequestHead, bytes]] = []
    body = b""
    try:
        for part in parts:
            parser.feed(part)
            while True:
                body += parser.take_body()
                if not parser.complete or parser.head is None:
                    break
                messages.append((parser.head, body))
                body = b""
                if parser.head.method == "CONNECT" or len(messages) == _MAX_MESSAGES:
                    return _Read(tuple(messages), "enough")
                parser.next()
    except RequestRefused as refusal:
        return _Read(tuple(messages), f"{refusal.code} {refusal.detail}")
    return _Read(tuple(messages), "idle" if parser.idle else "incomplete")


def fuzz_request(data: bytes) -> int:
    """The number of messages taken. Raises Finding, or whatever a parser should not have raised."""
    for connect in (False, True):
        read = read_requests([data], connect=connect)
        for seed in (b"a", b"b"):
            _hold(read_requests(pieces(data, seed), connect=connect) == read, "a split changes a request's reading")
    same_by_h11(data, read)
    for head, body in read.messages:
        if head.method == "CONNECT":
            _quietly(lambda head=head: parse_connect_target(head.target))
            continue
        for tunnel in (("api.example.com", 443), None):
            target = _quietly(lambda head=head, tunnel=tunnel: resolve_target(head, tunnel=tunnel))
            if isinstance(target, Target):
                _emitted(head, body, target)
    return len(read.messages)


def _quietly(read):  # type: ignore[no-untyped-def]
    try:
        return read()
    except RequestRefused:
        return None


def same_by_h11(data: bytes, read: _Read[RequestHead]) -> None:
    """h11 follows RFC 9112 and is laxer than we are: whatever we take it has to take, and alike."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    for head, body in read.messages:
        if head.version != "HTTP/1.1":
            return
        request = connection.next_event()
        _hold(isinstance(request, h11.Request), f"h11 does not read a request that we take: {request!r}")
        assert isinstance(request, h11.Request)
        _hold((request.method.decode(), request.target) == (head.method, head.target), "h11 reads another line")
        ours = sorted((name, value) for name, value in head.headers if name != b"transfer-encoding")
        theirs = sorted((name, value) for name, value in request.headers if name != b"transfer-encoding")
        if head.content_length is not None:  # h11 hands lengths on without leading zeros or not; the number counts
            ours = [field for field in ours if field[0] != b"content-length"]
            theirs = [field for field in theirs if field[0] != b"content-length"]
        _hold(ours == theirs, "h11 reads other fields")
        if head.method == "CONNECT":
            return
        seen = b""
        while isinstance(event := connection.next_event(), h11.Data):
            seen += event.data
        _hold(isinstance(event, h11.EndOfMessage), f"h11 sees no end where we do: {event!r}")
        _hold(seen == body, "h11 reads another body")
        if not head.keep_alive:
            return
        connection.send(h11.Response(status_code=204, headers=[]))
        connection.send(h11.EndOfMessage())
        if connection.states[h11.CLIENT] is not h11.DONE:
            return
        connection.start_next_cycle()


def _emitted(head: RequestHead, body: bytes, target: Target) -> None:
    authority = format_authority(target.scheme, target.host, target.port)
    try:
        written = emit_head(
            head.method,
            target.path,
            target.query,
            authority,
            head.headers,
            content_length=len(body) if head.has_body else None,
            remove=CREDENTIALS,
        ).wire((b"authorization", b"Bearer s"))
    except RequestRefused:
        return
    again = read_requests([written + body], connect=False, limits=OWN)
    _hold(len(again.messages) == 1 and again.ended == "idle", f"what is emitted does not read back: {again.ended}")
    (read, read_body) = again.messages[0]
    _hold((read.method, read_body) == (head.method, body), "another method or body is emitted")
    _hold(read.get(b"authorization") == b"Bearer s", "the secret's field is not the one that counts")
    _hold(read.keep_alive and not read.expect_continue, "the agent's connection options reach the origin")
    for name, _ in read.headers:
        _hold(not name.startswith(_NEVER_SENT) and name != b"te", f"{name!r} reaches the origin")
    same = resolve_target(read, tunnel=(target.host, target.port), scheme=target.scheme)
    _hold(same == target, "the emitted target is read as another")
    same_by_h11(written + body, again)


# --- responses --------------------------------------------------------------------------------------------------------


def read_response(
    parts: Iterable[bytes], method: str, limits: HttpLimits = LIMITS
) -> tuple[_Read[ResponseHead], bytes]:
    """The response in the parts, and its body as far as it came."""
    parser = ResponseParser(method, limits)
    body = b""
    try:
        for part in parts:
            parser.feed(part)
            body += parser.take_body()
        whole = parser.complete
        parser.eof()
    except ResponseRefused as refusal:
        return _Read((), refusal.detail), b""
    assert parser.head is not None
    ended = f"whole {whole}, reusable {parser.reusable}, surplus {parser.surplus}"
    return _Read(((parser.head, body),), ended), body


def fuzz_response(data: bytes) -> int:
    """The number of messages taken, of two readings. Raises Finding, or what a parser should not have raised."""
    taken = 0
    for method in ("GET", "HEAD"):
        read, body = read_response([data], method)
        for seed in (b"a", b"b"):
            _hold(read_response(pieces(data, seed), method)[0] == read, "a split changes a response's reading")
        taken += len(read.messages)
        for head, _ in read.messages:
            _hold(200 <= head.status <= 599, "a status that is no final one")
            _response_by_h11(data, method, head, body)
            _returned(head, body, method)
    return taken


def _response_by_h11(data: bytes, method: str, head: ResponseHead, body: bytes) -> None:
    status, fields, seen = _h11_response(data, method)
    _hold(status == head.status, f"h11 reads status {status}")
    _hold(seen == body, "h11 reads another body")
    ours = sorted(field for field in head.headers if field[0] not in (b"transfer-encoding", b"content-length"))
    theirs = sorted(field for field in fields if field[0] not in (b"transfer-encoding", b"content-length"))
    _hold(ours == theirs, "h11 reads other fields")


def _h11_response(data: bytes, method: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    status, fields, seen = 0, [], b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            status, fields = event.status_code, [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, h11.Data):
            seen += event.data
        elif not isinstance(event, h11.InformationalResponse):
            _hold(isinstance(event, h11.EndOfMessage), f"h11 sees no end where we do: {event!r}")
            return status, fields, seen


def _returned(head: ResponseHead, body: bytes, method: str) -> None:
    """What the agent is sent: counted, or chunked where we did not know the length."""
    length = head.content_length if head.bodyless else len(body)
    written = emit_response_head(head, content_length=length, add=((b"exeat-call", b"c_1"),))
    top = written[:-4]
    _hold(written.endswith(b"\r\n\r\n") and b"\r\n\r\n" not in top, "the head ends before its end")
    stray = top.replace(b"\r\n", b"").translate(None, bytes([9, *range(32, 127), *range(128, 256)]))
    _hold(not stray, f"control characters reach the agent: {stray!r}")
    sent = written if head.bodyless else written + body
    read, again = read_response([sent], method, OWN)
    _hold(len(read.messages) == 1, f"what is returned does not read back: {read.ended}")
    (same, _) = read.messages[0]
    _hold((same.status, again) == (head.status, body), "another status or body is returned")
    _hold("surplus False" in read.ended, "what is returned has a surplus")
    ours = [value for name, value in same.headers if name.startswith(b"exeat-")]
    _hold(ours == [b"c_1"], "an origin says what is ours to say")
    _hold(same.get(b"alt-svc") is None, "an origin leads around us")
    status, _, seen = _h11_response(sent, method)
    _hold((status, seen) == (head.status, body), "h11 reads another answer than was given")
