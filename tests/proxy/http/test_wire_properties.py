"""What holds for any bytes: only refusals are raised, splits change nothing, and what is emitted reads back the
same."""

from itertools import pairwise
from urllib.parse import unquote

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.chunked import ChunkDecoder, ChunkError
from proxy.http.emit import LAST_CHUNK, emit_chunk, emit_head
from proxy.http.errors import RequestRefused, ResponseRefused
from proxy.http.limits import HttpLimits
from proxy.http.request import RequestParser
from proxy.http.response import ResponseParser
from proxy.http.target import (
    check_query,
    format_authority,
    normalise_host,
    normalise_path,
    parse_host_header,
    resolve_target,
)
from rules.codes import Code

SMALL = HttpLimits(
    max_header_bytes=256,
    max_header_count=4,
    max_target_bytes=64,
    max_body_bytes=64,
    max_response_header_bytes=256,
    max_response_header_count=4,
    max_interim_responses=2,
    max_trailer_bytes=64,
    max_chunk_extension_bytes=16,
    free_chunks=4,
    free_response_chunks=4,
)

REQUEST_PIECES = st.sampled_from(
    [
        b"GET ", b"POST ", b"CONNECT ", b"TRACE ", b"get ", b"/ ", b"/a?b ", b"* ", b"a:1 ", b"HTTP/1.1\r\n",
        b"HTTP/1.0\r\n", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"Host: a\r\n", b"Host: b, c\r\n", b"\r\n",
        b"\r", b"\n", b" ", b"\t", b"\0", b"\xff", b"X: y\r\n", b"X_Y: z\r\n", b"Content-Length: 3\r\n",
        b"Content-Length: 99\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n",
        b"Expect: 100-continue\r\n", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b"1\r\na\r\n", b"40\r\n", b";e",
        b"a" * 70, b":",
    ]
)  # fmt: skip
RESPONSE_PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 101 S\r\n\r\n",
        b"HTTP/1.1 204 N\r\n", b"HTTP/1.1 304 N\r\n", b"\r\n", b"\r", b"\n", b"X: y\r\n", b"Content-Length: 3\r\n",
        b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"abc",
        b"3\r\nabc\r\n", b"3;x=y\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nT: v\r\n\r\n", b"0\r\n", b" ", b"\0", b"\xff", b"a"
        * 70,
    ]
)  # fmt: skip

CHUNK_PIECES = st.sampled_from(
    [b"3\r\nabc\r\n", b"0A\r\n0123456789\r\n", b"1;x=y\r\na\r\n", b"1;x\r\na\r\n", b"2\r\n\r\n\r\n",
     b"0\r\nT: v\r\n\r\n",
     b"1 \r\na\r\n", b"1\na\r\n", b"4\r\n0\r\n\r", b"\r\n", b"0\r\n", b";", b"1\r\n"]
)  # fmt: skip


def mixed(pieces: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(pieces | st.binary(max_size=6), max_size=14).map(b"".join)


def read_request(data: bytes, cuts: list[int], connect: bool) -> tuple[object, ...]:
    parser, body, code = RequestParser(SMALL, connect=connect), b"", None
    try:
        for piece in split(data, cuts):
            parser.feed(piece)
            body += parser.take_body()
    except RequestRefused as refusal:
        code = (refusal.code, refusal.detail, refusal.close)
    if code is not None:
        return code, parser.head
    return parser.head, parser.complete, body, parser.take_tunnel_bytes(), parser.idle


def read_response(data: bytes, cuts: list[int], method: str) -> tuple[object, ...]:
    parser, body = ResponseParser(method, SMALL), b""
    try:
        for piece in split(data, cuts):
            parser.feed(piece)
            body += parser.take_body()
        at_eof = (parser.head, parser.complete, parser.surplus, parser.reusable, parser.interim)
        parser.eof()
    except ResponseRefused:
        return ("refused", parser.head)
    return (*at_eof, body, parser.complete)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@settings(max_examples=400, deadline=None)
@given(data=mixed(REQUEST_PIECES), cuts=st.lists(st.integers(0, 1000), max_size=5), connect=st.booleans())
def test_a_split_of_a_request_changes_nothing(data: bytes, cuts: list[int], connect: bool) -> None:
    whole = read_request(data, [], connect)
    assert read_request(data, cuts, connect) == whole
    assert read_request(data, list(range(len(data))), connect) == whole


@settings(max_examples=400, deadline=None)
@given(data=mixed(RESPONSE_PIECES), cuts=st.lists(st.integers(0, 1000), max_size=5), head=st.booleans())
def test_a_split_of_a_response_changes_nothing(data: bytes, cuts: list[int], head: bool) -> None:
    method = "HEAD" if head else "GET"
    whole = read_response(data, [], method)
    assert read_response(data, cuts, method) == whole
    assert read_response(data, list(range(len(data))), method) == whole


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=40))
def test_hosts_paths_and_queries_raise_refusals_alone(raw: bytes) -> None:
    for judge in (normalise_host, normalise_path, check_query, lambda host: parse_host_header(host, 443)):
        try:
            judge(raw)
        except RequestRefused as refusal:
            closes = refusal.close
        else:
            closes = False
        assert not closes, "the head was sound, so the connection still is"


@settings(max_examples=300, deadline=None)
@given(raw=st.text(alphabet="/.%2eE5cCfF0aA;~-_ x", max_size=24))
def test_a_normal_path_is_free_of_structure_in_every_decoding(raw: str) -> None:
    try:
        path = normalise_path(raw.encode("ascii"))
    except RequestRefused:
        return
    assert normalise_path(path.encode("ascii")) == path
    decoded = path
    for _ in range(3):
        decoded = unquote(decoded, errors="strict")
        segments = decoded.split("/")[1:]
        assert "." not in segments
        assert ".." not in segments
        assert "" not in segments[:-1]
        assert len(segments) == path.count("/")
        assert not set(decoded) & set("\\;\0\r\n")


TOKENS = st.text(alphabet="abcdefgXYZ019-", min_size=1, max_size=12).filter(
    lambda name: name.lower() not in {"host", "te", "via", "from", "date", "range"}
)
VALUES = st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    fields=st.lists(st.tuples(TOKENS, VALUES), max_size=6),
    body=st.binary(max_size=50),
    pieces=st.integers(1, 7),
    chunked=st.booleans(),
)
def test_what_is_emitted_reads_back_the_same(
    method: str, fields: list[tuple[str, str]], body: bytes, pieces: int, chunked: bool
) -> None:
    headers = tuple((name.lower().encode(), value.encode()) for name, value in fields)
    head = emit_head(
        method, "/a", "b=c", b"a.example", headers, content_length=None if chunked else len(body), chunked=chunked
    )
    if chunked:
        sent = b"".join(emit_chunk(body[at : at + pieces]) for at in range(0, len(body), pieces)) + LAST_CHUNK
    else:
        sent = body
    parser = RequestParser()
    parser.feed(head.public + sent)
    assert parser.complete
    assert parser.idle is False
    assert parser.take_body() == body
    seen = parser.head
    assert seen is not None
    assert (seen.method, seen.target, seen.host, seen.chunked) == (method, b"/a?b=c", b"a.example", chunked)
    ours = {b"host", b"content-length", b"transfer-encoding"}
    assert [field for field in seen.headers if field[0] not in ours] == list(headers)
    again = emit_head(
        seen.method, "/a", "b=c", seen.host, seen.headers, content_length=seen.content_length, chunked=seen.chunked
    )
    assert again == head


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(CHUNK_PIECES, max_size=8), extensions=st.booleans(), tail=st.binary(max_size=3))
def test_chunks_are_read_as_llhttp_reads_them_or_refused(pieces: list[bytes], extensions: bool, tail: bytes) -> None:
    """We may refuse what llhttp takes. We never complete what it refuses, nor read another body or another end."""
    data = b"".join(pieces) + b"0\r\n\r\n" + tail
    ours = ChunkDecoder(free_chunks=1 << 20, max_extension_bytes=64 * extensions, max_trailer_bytes=64 * extensions)
    out: list[bytes] = []
    try:
        end = ours.feed(data, 0, out, None)
    except ChunkError:
        return
    if not ours.done:
        return

    class Reader:
        body = b""
        complete = False

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            self.complete = True

    theirs = Reader()
    httptools.HttpRequestParser(theirs).feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + data[:end])
    assert theirs.body == b"".join(out)
    assert theirs.complete


def test_a_flood_of_tiny_chunks_is_refused_before_it_is_decoded() -> None:
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.feed(b"1\r\na\r\n" * 1024)
    with pytest.raises(RequestRefused):
        parser.feed(b"1\r\na\r\n" * 200)
    assert parser.buffered < 1200


def test_held_bytes_are_counted_and_bounded() -> None:
    limits = HttpLimits(pause_bytes=1000, max_pipelined_bytes=3000)
    parser = RequestParser(limits)
    parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n" + b"x" * 900)
    assert (parser.buffered, parser.wants_pause) == (900, False)
    parser.feed(b"x" * 1100)
    assert (parser.buffered, parser.wants_pause, parser.complete) == (2000, True, True)
    assert len(parser.take_body()) == 2000
    assert (parser.buffered, parser.wants_pause) == (0, False)
    parser.feed(b"y" * 1001)
    assert (parser.buffered, parser.wants_pause) == (1001, True)
    with pytest.raises(RequestRefused):
        parser.feed(b"y" * 2000)


def test_a_head_above_the_limit_is_refused_before_more_is_held() -> None:
    parser = RequestParser()

    def flood() -> None:
        for _ in range(10_000):
            parser.feed(b"X: " + b"a" * 997)

    parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n")
    with pytest.raises(RequestRefused):
        flood()
    assert parser.buffered <= HttpLimits().max_header_bytes + 1000


@pytest.mark.parametrize(
    "start",
    [
        b"\x16", b"\r", b"\n", b" ", b"\0", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: a\n", b"GET /\r\n",
        b"get / HTTP/1.1\r\n",
        b"GET /\x80", b"GET /\0", b"TRACE / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: \0", b"GET / HTTP/1.1\r\nA: b\rc",
        b"GET / HTTP/1.0\r\n", b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\r", b"GET / HTTP/1.1\rX",
    ],
)  # fmt: skip
def test_what_no_continuation_can_save_is_refused_at_once(start: bytes) -> None:
    with pytest.raises(RequestRefused):
        RequestParser().feed(start)
    parser = RequestParser()
    for byte in start[:-1]:
        parser.feed(bytes([byte]))
    with pytest.raises(RequestRefused):
        parser.feed(start[-1:])


@pytest.mark.parametrize("start", [b"X", b"HTTP/2", b"\x16", b"HTTP/1.1 200 OK\r\nA: " + b"a" * 65536])
def test_what_cannot_become_a_response_is_refused_at_once(start: bytes) -> None:
    with pytest.raises(ResponseRefused):
        ResponseParser("GET").feed(start)


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"CONNECT"])
def test_the_targets_limit_is_exact(method: bytes) -> None:
    limits = HttpLimits(max_target_bytes=100)
    host = b"a" * 96 + b":443"
    target = host if method == b"CONNECT" else b"/" + b"a" * 99
    RequestParser(limits, connect=True).feed(method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises(RequestRefused) as refused:
        RequestParser(limits, connect=True).feed(method + b" a" + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert refused.value.code is Code.HEADERS_TOO_LARGE


def test_the_bodys_limit_is_exact() -> None:
    limits = HttpLimits(max_body_bytes=10)
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    counted = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    RequestParser(limits).feed(chunked + b"a\r\n0123456789\r\n0\r\n\r\n")
    RequestParser(limits).feed(counted % 10)
    for over in (chunked + b"b\r\n", chunked + b"5\r\n01234\r\n6\r\n", counted % 11):
        parser = RequestParser(limits)
        with pytest.raises(RequestRefused) as refused:
            parser.feed(over)
        assert refused.value.code is Code.BODY_TOO_LARGE
        assert parser.head is not None, "the caller can say whose request it was"
    unbounded = RequestParser(HttpLimits(max_body_bytes=None))
    unbounded.feed(counted % (1 << 40))
    assert unbounded.head is not None


def test_the_next_request_is_read_only_when_asked_for() -> None:
    parser = RequestParser()
    parser.feed(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nTRACE / HTTP/1.1\r\n")
    assert parser.head is not None
    assert parser.head.target == b"/1"
    parser.next()
    assert parser.head is not None
    assert parser.head.target == b"/2"
    with pytest.raises(RequestRefused):
        parser.next()
    fresh = RequestParser()
    fresh.feed(b"GET / HTTP/1.1\r\n")
    with pytest.raises(RuntimeError):
        fresh.next()


def test_a_normalised_host_is_written_and_read_alike() -> None:
    for raw, port in (
        (b"a.example", 443),
        (b"a.example", 8443),
        (b"[2001:db8::1]", 443),
        (b"[::1]", 1),
        (b"1.2.3.4", 80),
    ):
        host = normalise_host(raw)
        assert parse_host_header(format_authority("https", host, port), 443) == (host, port)


def test_a_request_without_host_has_no_destination() -> None:
    parser = RequestParser(connect=True)
    parser.feed(b"CONNECT a.example:443 HTTP/1.0\r\n\r\n")
    assert parser.head is not None
    with pytest.raises(RequestRefused) as refused:
        resolve_target(parser.head)
    assert refused.value.code is Code.AMBIGUOUS_TARGET
