"""Event streams through the filter: read as the standard says, given on at once, and never a denied tool in them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.replies.event_stream import MAX_EVENT_BYTES, EventStreamFilter
from tests.proxy.replies.sse import names_in, read

ADD = b'{"name":"add","inputSchema":{"type":"object"}}'
EVIL = b'{"name":"evil","inputSchema":{"type":"object"}}'
BOTH = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[%b,%b]}}' % (ADD, EVIL)
NOTICE = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'


def not_evil(name: str, _digest: str) -> bool:
    return name != "evil"


def through(stream: bytes, *, size: int | None = None, request_id: int | None = 7) -> tuple[bytes, str | None]:
    """What comes out, fed in pieces of this size."""
    filter_ = EventStreamFilter(not_evil, request_id)
    step = size or len(stream) or 1
    out = b"".join(filter_.feed(stream[at : at + step]) for at in range(0, len(stream), step)) + filter_.end()
    return out, filter_.refused


def tools(stream: bytes) -> list[str]:
    """The names of all tools that a client finds."""
    return [name for _, data, _ in read(stream).events for name in names_in(data)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_end_of_a_line_is_one(end: bytes) -> None:
    first = [b": hello", b"event: message", b"id: 4", b"retry: 10", b"data: " + BOTH, b""]
    stream = end.join([*first, b"data:" + NOTICE, b"", b""])
    out, refused = through(stream)
    assert refused is None
    seen, sent = read(out), read(stream)
    assert seen.retry == sent.retry == 10
    assert [event[::2] for event in seen.events] == [event[::2] for event in sent.events] == [("message", "4")] * 2
    assert tools(out) == ["add"]
    assert seen.events[1] == sent.events[1]
    assert out.startswith(b": hello\n")


@pytest.mark.parametrize(
    ("stream", "out"),
    [
        (b"", b""),
        (b"\n\r\n\r", b""),  # it ends no event
        (b"\xef\xbb\xbfdata: 1\n\n", b"data: 1\n\n"),  # the mark belongs to the encoding
        (b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n", b"data: 1\n\n\n"),  # elsewhere it makes another field, which is unknown
        (b"data\n\n", b"data: \n\n"),
        (b"id: 3\ndata:\n\n", b"id: 3\ndata: \n\n"),  # a server's first event, to resume from
        (b"data:1\n\n", b"data: 1\n\n"),
        (b"data: [1,\ndata: 2]\n\n", b"data: [1,\ndata: 2]\n\n"),
        (b"data: 1\nid\nevent\n\n", b"data: 1\nid\nevent\n\n"),
        (b"data: 1\nstrange: x\n\n", b"data: 1\n\n"),
        (b"Data: 1\n data: 2\n\n", b"\n"),  # names of fields are exact
        (b"data: 1\n: why\n\n", b"data: 1\n: why\n\n"),
        (b": ping\r", b": ping\n"),
        (b"data: 1", b""),  # what has no end is none
        (b"data: 1\n", b""),
        (b"data: 1\r\r", b"data: 1\n\n"),
        (b"data: 1\r\n\r\n", b"data: 1\n\n"),
        (b"id: 1\r\ndata: 1\r\n\r\n", b"id: 1\ndata: 1\n\n"),
        ('data: "\u2028\x85\u2029"\n\n'.encode(), b'data: "\\u2028\\u0085\\u2029"\n\n'),
    ],
)
def test_streams_come_out_as_the_standard_reads_them(stream: bytes, out: bytes) -> None:
    for size in (None, 1, 2, 3):
        assert through(stream, size=size) == (out, None)


@pytest.mark.parametrize(
    "event",
    [
        b"data: {\n\n",
        b"id: 1\n data: 1\n\ndata: nothing\n\n",
        b"data: " + BOTH + b"\ndata: " + BOTH + b"\n\n",
        b'data: {"id":1,"result":{"tools":["x"]}}\n\n',
        b"data: \xff\n\n",
        b"\xff: comment\n\n",
        "id: 1\u2028data: x\ndata: 1\n\n".encode(),
        b"event: a\x0bdata: x\ndata: 1\n\n",
        b"id: 1\x00\ndata: 1\n\n",
        b"event: endpoint\ndata: /messages?session=1\n\n",
        b"data: " + b" " * MAX_EVENT_BYTES + b"1\n\n",
        b"data: " + b"1" * MAX_EVENT_BYTES,
        (b"data: " + b" " * 1000 + b"\n") * 1100,
        b"data\n" * 11_000,
        b":" + b" " * MAX_EVENT_BYTES + b"\n",
    ],
)
@pytest.mark.parametrize("size", [None, 1000])
def test_what_cannot_be_judged_ends_the_stream_with_an_error_to_its_request(event: bytes, size: int | None) -> None:
    out, refused = through(b"data: " + NOTICE + b"\n\n" + event + b"data: " + NOTICE + b"\n\n", size=size)
    assert refused is not None
    _, error = (json.loads(data) for _, data, _ in read(out).events)
    assert error["id"] in (1, 7)
    assert error["error"]["data"] == {"code": "upstream_protocol", "detail": refused}
    assert error["error"]["message"].startswith("upstream_protocol: ")


def test_a_stream_that_answers_nobody_is_ended_without_a_word() -> None:
    out, refused = through(b"data: " + NOTICE + b"\n\ndata: {\n\n", request_id=None)
    assert refused is not None
    assert out == b"data: " + NOTICE + b"\n\n"


def test_an_event_is_given_with_its_last_byte() -> None:
    """Nothing is held longer, and nothing given sooner."""
    filter_ = EventStreamFilter(not_evil)
    event = b"id: 1\ndata: " + NOTICE + b"\n\n"
    for at in range(len(event) - 1):
        assert filter_.feed(event[at : at + 1]) == b""
    assert filter_.feed(event[-1:]) == event
    assert filter_.feed(b": ping") == b""
    assert filter_.feed(b"\r") == b": ping\n"
    assert filter_.feed(b"\ndata: 1\r\r") == b"data: 1\n\n"
    assert filter_.feed(b"\n") == b""


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_it_does_not_matter_where_a_stream_is_cut(data: st.DataObject) -> None:
    end = data.draw(st.sampled_from([b"\n", b"\r", b"\r\n"]))
    parts = end.join([b"data: " + NOTICE[:16], b"data: " + NOTICE[16:]])
    lines = [b"\xef\xbb\xbf: hi", b"", b"id: 1", b"data: " + BOTH, b"", parts, b"", b""]
    stream = end.join(lines)
    expected = through(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    filter_ = EventStreamFilter(not_evil, 7)
    out = b"".join(filter_.feed(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))
    assert (out + filter_.end(), filter_.refused) == expected


PIECES = st.sampled_from(
    [b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"id: 1", b"event: message", b"retry: 5", b"\xef\xbb\xbf",
     b"\x00", "\u2028".encode(), b"\x85", b"\x0b", b"data: " + BOTH, b"data: [" + BOTH + b"]", b"data: " + NOTICE, BOTH,
     BOTH[:40], BOTH[40:],
     b'{"result":{"tools":[', EVIL, b"]}}", b",", b'"', b"\\", b'{"Result":{"tools":[' + EVIL + b"]}}"]
)  # fmt: skip


@given(st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=25).map(b"".join)), st.integers(1, 50))
@settings(max_examples=400, deadline=None)
def test_whatever_comes_nothing_is_raised_and_no_denied_tool_comes_out(stream: bytes, size: int) -> None:
    out, refused = through(stream, size=size)
    assert "evil" not in tools(out)
    # Nor for a reader that takes more for the end of a line than the standard does.
    lenient = "\n".join(out.decode("utf-8").splitlines()).encode() + b"\n\n"
    assert "evil" not in tools(lenient)
    if refused is None:
        assert len(read(out).events) == len(read(stream).events)
