"""What replies of vendors say that they used; what is missing, cut or impossible is not known."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.response import ResponseParser
from proxy.http.response_head import ResponseHead
from proxy.usage.events import MAX_EVENT_BYTES, EventsTap
from proxy.usage.tap import Tap
from proxy.usage.taps import tap_for
from rules.catalogue.builtin import builtin
from rules.catalogue.document import ServiceDocument, known_service
from rules.catalogue.usage import Usage
from rules.prices.tokens import Tokens

STREAM = "text/event-stream; charset=utf-8"


def usage_of(tool: str) -> Usage:
    service = builtin(tool.partition(".")[0])
    assert service is not None
    usage = service.tools[tool].usage
    assert usage is not None
    return usage


CHAT, RESPONSES, EMBEDDINGS, COMPLETIONS, MESSAGES = map(
    usage_of,
    (
        "openai.chat.completions.create",
        "openai.responses.create",
        "openai.embeddings.create",
        "openai.completions.create",
        "anthropic.messages.create",
    ),
)


def head(status: int = 200, media: str = "application/json", **more: str) -> ResponseHead:
    fields = "".join(
        f"{name.replace('_', '-')}: {value}\r\n" for name, value in {"content_type": media, **more}.items()
    )
    parser = ResponseParser("POST")
    parser.feed(f"HTTP/1.1 {status} X\r\n{fields}Content-Length: 9\r\n\r\n".encode())
    assert parser.head is not None
    return parser.head


def told(
    usage: Usage, body: bytes, media: str = "application/json", *, whole: bool = True, cuts: Any = ()
) -> Tokens | None:
    tap = tap_for(usage, head(media=media))
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    for a, b in pairwise(edges):
        tap.feed(body[a:b])
    return tap.tell(whole=whole)


def events(*data: object, names: bool = False) -> bytes:
    out = []
    for one in data:
        if names and isinstance(one, dict) and "type" in one:
            out.append(f"event: {one['type']}\n")
        out.append(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n")
    return "".join(out).encode()


CHUNK = {"choices": [{"delta": {"content": 'say "usage": {"prompt_tokens": 1}'}}], "usage": None}
LAST = {
    "choices": [],
    "usage": {
        "prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}  # fmt: skip
START = {
    "type": "message_start",
    "message": {
        "id": "msg_1", "content": [],
        "usage": {
            "input_tokens": 25, "cache_creation_input_tokens": 40, "cache_read_input_tokens": 100, "output_tokens": 1,
            "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 10},
        },
    },
}  # fmt: skip
DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn"},
    "usage": {"input_tokens": None, "output_tokens": 15},
}
STOP = {"type": "message_stop"}
TEXT = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Once"}}
COMPLETED = {
    "type": "response.completed",
    "response": {
        "output": [{"text": "x" * 5000}],
        "usage": {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 6}, "output_tokens": 87},
    },
}
CREATED = {"type": "response.created", "response": {"usage": None}}


@pytest.mark.parametrize(
    ("usage", "body", "media", "tokens"),
    [
        (CHAT, json.dumps(LAST).encode(), "application/json", Tokens(input=15, cached=4, output=10)),
        (CHAT, events(CHUNK, CHUNK, LAST, "[DONE]"), STREAM, Tokens(input=15, cached=4, output=10)),
        (CHAT, events(CHUNK, LAST, "[DONE]").replace(b"\n", b"\r\n"), STREAM, Tokens(input=15, cached=4, output=10)),
        (
            RESPONSES,
            json.dumps(COMPLETED["response"]).encode(),
            "application/json",
            Tokens(input=30, cached=6, output=87),
        ),
        (RESPONSES, events(CREATED, COMPLETED, names=True), STREAM, Tokens(input=30, cached=6, output=87)),
        (
            EMBEDDINGS,
            b'{"data":[{"embedding":[1,2]}],"usage":{"prompt_tokens":8}}',
            "application/json",
            Tokens(input=8),
        ),
        (COMPLETIONS, b'{"usage":{"prompt_tokens":5,"completion_tokens":7}}', "application/json", Tokens(5, output=7)),
        (
            MESSAGES,
            events(START, TEXT, DELTA, STOP, names=True),
            STREAM,
            Tokens(input=25, cached=100, cache_write=30, cache_write_1h=10, output=15),
        ),
        (
            MESSAGES,
            b'{"usage":{"input_tokens":3,"cache_read_input_tokens":0,"output_tokens":4}}',
            "application/json",
            Tokens(input=3, output=4),
        ),
    ],
)
@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_a_vendors_reply_tells_what_it_used_however_it_is_cut(
    usage: Usage, body: bytes, media: str, tokens: Tokens, cuts: list[int]
) -> None:
    assert told(usage, body, media, cuts=cuts) == tokens


@pytest.mark.parametrize(
    ("usage", "body", "media"),
    [
        (CHAT, events(CHUNK, CHUNK, "[DONE]"), STREAM),
        (CHAT, b'{"choices":[]}', "application/json"),
        (CHAT, b'{"usage":null}', "application/json"),
        (CHAT, b'{"usage":{"prompt_tokens":5}}', "application/json"),
        (CHAT, b'{"usage":{"prompt_tokens":-5,"completion_tokens":1}}', "application/json"),
        (CHAT, b'{"usage":{"prompt_tokens":5.5,"completion_tokens":1}}', "application/json"),
        (CHAT, b'{"usage":{"prompt_tokens":true,"completion_tokens":1}}', "application/json"),
        (CHAT, b'{"usage":{"prompt_tokens":"5","completion_tokens":1}}', "application/json"),
        (CHAT, b'{"usage":{"prompt_tokens":5,"completion_tokens":9007199254740993}}', "application/json"),
        (CHAT, b'{"usage":{"prompt_tokens":5,"completion_tokens":2199023255552}}', "application/json"),
        (CHAT, b'{"usage":{"prompt_tokens":5,"prompt_tokens":1,"completion_tokens":1}}', "application/json"),
        (
            CHAT,
            b'{"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":6},"completion_tokens":1}}',
            "application/json",
        ),
        (CHAT, b'{"usage":{"prompt_tokens":5,"completion_tokens":1}}', "text/plain"),
        (CHAT, b'{"usage":{"prompt_tokens":5,"completion_tokens":1}', "application/json"),
        (MESSAGES, events(START, TEXT, {"type": "error", "error": {"type": "overloaded_error"}}), STREAM),
        (EMBEDDINGS, events(LAST), STREAM),
        (RESPONSES, events(COMPLETED)[:-2], STREAM),
    ],
)
def test_what_is_not_said_or_cannot_be_is_not_known(usage: Usage, body: bytes, media: str) -> None:
    assert told(usage, body, media) is None


@pytest.mark.parametrize("usage", [CHAT, MESSAGES])
def test_a_stream_that_is_cut_is_known_only_once_nothing_can_be_missing(usage: Usage) -> None:
    data = (CHUNK, LAST, "[DONE]") if usage is CHAT else (START, TEXT, DELTA, STOP)
    for number in range(len(data)):
        assert told(usage, events(*data[:number], names=True), STREAM, whole=False) is None
    assert told(usage, events(*data, names=True), STREAM, whole=False) is not None


def test_a_reply_that_is_cut_is_not_known() -> None:
    assert told(CHAT, json.dumps(LAST).encode(), whole=False) is None


@pytest.mark.parametrize(
    ("usage", "status", "more", "tokens"),
    [
        (CHAT, 400, {}, Tokens()),
        (CHAT, 429, {}, Tokens()),
        (CHAT, 503, {}, Tokens()),
        (MESSAGES, 529, {}, Tokens()),
        (CHAT, 500, {}, None),
        (MESSAGES, 503, {}, None),
        (CHAT, 302, {}, None),
        (CHAT, 200, {"content_encoding": "gzip"}, None),
        (CHAT, 206, {}, None),
    ],
)
def test_the_head_says_what_no_body_will(
    usage: Usage, status: int, more: dict[str, str], tokens: Tokens | None
) -> None:
    tap = tap_for(usage, head(status, **more))
    tap.feed(json.dumps(LAST).encode())
    assert tap.tell(whole=True) == tokens


def test_a_header_can_count() -> None:
    service = known_service(
        ServiceDocument.model_validate(
            {
                "catalogue": 1,
                "service": "x",
                "tools": {
                    "ask": {
                        "call": "POST /ask",
                        "effect": "write",
                        "usage": {"headers": {"input": "X-In", "output": "X-Out"}},
                    }
                },
            }
        )
    )
    usage = service.tools["x.ask"].usage
    assert usage is not None
    assert tap_for(usage, head(x_in="5", x_out="7")).tell(whole=False) == Tokens(5, output=7)
    assert tap_for(usage, head(x_in="5", x_out="-7")).tell(whole=True) is None
    assert tap_for(usage, head(x_in="5")).tell(whole=True) is None


def test_an_event_that_does_not_end_is_given_up_and_nothing_of_it_kept() -> None:
    tap = EventsTap(CHAT)
    piece = b"data: " + b"x" * 65536
    for _ in range(MAX_EVENT_BYTES // 65536 + 2):
        tap.feed(piece)
        assert tap.held <= MAX_EVENT_BYTES + len(piece)
    assert tap.held == 0
    tap.feed(b"\n\n" + events(LAST, "[DONE]"))
    assert tap.tell(whole=True) is None


ANY = st.binary(max_size=80) | st.sampled_from(
    [
        b"data: ",
        b"\n",
        b"\r",
        b'{"usage":',
        b'{"prompt_tokens":',
        b"5",
        b"}",
        b"event: message_stop\n",
        events(LAST),
        events(START),
    ]
)


@given(
    st.lists(ANY, max_size=12),
    st.sampled_from([CHAT, MESSAGES]),
    st.sampled_from(["application/json", STREAM]),
    st.booleans(),
)
def test_any_bytes_give_a_number_or_unknown(pieces: list[bytes], usage: Usage, media: str, whole: bool) -> None:
    tap: Tap = tap_for(usage, head(media=media))
    for piece in pieces:
        tap.feed(piece)
    tokens = tap.tell(whole=whole)
    assert tokens is None or tokens.total >= 0
    assert tokens == told(usage, b"".join(pieces), media, whole=whole), "however they are cut"
