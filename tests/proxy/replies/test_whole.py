"""Answers that are held until they are whole, and the filter that each kind of answer gets."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.response_head import read_response_head
from proxy.replies.event_stream import EventStreamFilter
from proxy.replies.mcp import McpReplies
from proxy.replies.reply_filter import ReplyFilter
from proxy.replies.whole import MAX_BYTES, JsonFilter, OtherFilter, Refusal
from tests.proxy.replies.sse import names_in
from tests.proxy.replies.test_event_stream import BOTH, NOTICE, PIECES, not_evil


def filter_of(*fields: str, status: str = "200 OK") -> ReplyFilter:
    raw = "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()
    return McpReplies(not_evil)(read_response_head(raw, "POST", 100))


def through(filter_: ReplyFilter, data: bytes, size: int = 1000) -> tuple[bytes, str | None]:
    out = b"".join(filter_.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert out == b""
    return filter_.end(), filter_.refused


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (("Content-Type: application/json",), JsonFilter),
        (("Content-Type: Application/JSON; charset=UTF-8",), JsonFilter),
        (("Content-Type: text/event-stream; charset=utf-8", "Content-Encoding: identity"), EventStreamFilter),
        (("Content-Type: text/html",), OtherFilter),
        (("Content-Type: application/json-seq",), OtherFilter),
        (("Content-Type: ",), OtherFilter),
        ((), OtherFilter),
        (("Content-Type: application/json; charset=utf-16",), Refusal),
        (("Content-Type: application/json; application/x",), Refusal),
        (("Content-Type: application/json", "Content-Encoding: gzip"), Refusal),
        (("Content-Type: text/event-stream", "Content-Encoding: br"), Refusal),
    ],
)
def test_each_kind_of_answer_has_its_filter(fields: tuple[str, ...], kind: type) -> None:
    assert type(filter_of(*fields)) is kind


def test_a_part_of_an_answer_is_refused() -> None:
    assert through(filter_of("Content-Type: application/json", status="206 Partial Content"), b"]")[1] is not None


def test_a_list_of_tools_is_filtered() -> None:
    out, refused = through(JsonFilter(not_evil), BOTH, 7)
    assert (refused, [tool["name"] for tool in json.loads(out)["result"]["tools"]]) == (None, ["add"])


@pytest.mark.parametrize("data", [b"", NOTICE, b" " + NOTICE + b"\n", b"[" + NOTICE + b"]"])
def test_what_has_no_list_passes_byte_for_byte(data: bytes) -> None:
    assert through(JsonFilter(not_evil), data) == (data, None)


@pytest.mark.parametrize("filter_", [JsonFilter(not_evil), OtherFilter()])
def test_what_is_too_large_is_refused_and_not_kept(filter_: ReplyFilter) -> None:
    out, refused = through(filter_, b"[" + b" " * MAX_BYTES, 65536)
    assert out == b""
    assert refused is not None


@pytest.mark.parametrize(
    "data",
    [
        b"Accepted",
        b"<html><p>data is here</p>\n<p data-x='1'>\n</html>",
        b'{"error":"invalid_token"}',
        b"",
        b"\xff\x00"[:1],
    ],
)
def test_a_page_that_nobody_reads_as_messages_passes(data: bytes) -> None:
    assert through(OtherFilter(), data) == (data, None)


@pytest.mark.parametrize(
    "data",
    [
        BOTH, b" \n" + BOTH, b"[" + BOTH + b"]", b"\xef\xbb\xbf" + BOTH, b'{"a":', b"{'a':1}",
        b"data: " + BOTH + b"\n\n", b": hi\r\rdata:" + BOTH, b"\xef\xbb\xbfDATA : 1", BOTH.decode().encode("utf-16"),
        BOTH.decode().encode("utf-16-le"), BOTH.decode().encode("utf-32"), b"+/v8-" + BOTH,
        BOTH.decode().encode("utf-16-be"),
    ],
)  # fmt: skip
def test_a_page_that_somebody_could_read_as_messages_is_refused(data: bytes) -> None:
    out, refused = through(OtherFilter(), data)
    assert out == b""
    assert refused is not None


def test_an_empty_answer_of_any_kind_passes() -> None:
    assert through(Refusal("why"), b"") == (b"", None)
    assert through(Refusal("why"), b"x") == (b"", "why")


@given(
    st.sampled_from(["application/json", "text/plain", "application/x+json", "", "text/html; charset=x", "a/b;c"]),
    st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=10).map(b"".join)),
)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_nothing_is_raised_and_no_denied_tool_comes_out(media: str, data: bytes) -> None:
    out, refused = through(filter_of(f"Content-Type: {media}"), data, 20)
    assert (refused is None) or out == b""
    assert "evil" not in names_in(out)
