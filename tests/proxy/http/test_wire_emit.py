"""What leaves for the origin, and what goes back to the agent."""

import pytest

from proxy.http.emit import emit_chunk, emit_head, emit_response_head
from proxy.http.errors import RequestRefused
from proxy.http.headers import Headers
from proxy.http.request import RequestParser
from proxy.http.response import ResponseHead, ResponseParser
from rules.codes import Code


def agent(fields: bytes) -> Headers:
    parser = RequestParser()
    parser.feed(b"GET / HTTP/1.1\r\nHost: a.example\r\n" + fields + b"\r\n")
    assert parser.head is not None
    return parser.head.headers


def sent(fields: bytes, remove: frozenset[bytes] = frozenset()) -> bytes:
    return emit_head("GET", "/", "", b"a.example", agent(fields), content_length=None, remove=remove).public


BARE = b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"


def test_order_is_host_then_the_agents_fields_then_framing_then_the_secret() -> None:
    head = emit_head(
        "POST",
        "/v1/x",
        "a=b",
        b"a.example",
        agent(b"Content-Length: 0\r\nB: 1\r\nA: 2\r\nB: 3\r\n"),
        content_length=2,
        add=((b"x-ours", b"4"),),
    )
    assert head.public == (
        b"POST /v1/x?a=b HTTP/1.1\r\nhost: a.example\r\nb: 1\r\na: 2\r\nb: 3\r\nx-ours: 4\r\ncontent-length: 2\r\n\r\n"
    )
    assert head.wire() == head.public
    assert head.wire((b"Authorization", b"Bearer s")) == head.public[:-2] + b"authorization: Bearer s\r\n\r\n"


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: close", b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"TE: trailers", b"Trailer: X",
        b"Proxy-Authorization: Basic eA==", b"Proxy-Connection: keep-alive", b"Proxy-Anything: x",
        b"Forwarded: for=1.2.3.4", b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: http",
        b"X-Forwarded-Whatever: x", b"Via: 1.1 x", b"X-Real-IP: 1.2.3.4", b"True-Client-IP: 1.2.3.4",
        b"CF-Connecting-IP: 1.2.3.4", b"X-Host: evil", b"Max-Forwards: 0", b"Exeat-Call: c_forged", b"Alt-Used: evil",
        b"X-Client-IP: 1.1.1.1",
        b"Client-IP: 1.1.1.1", b"Fastly-Client-IP: 1.1.1.1", b"X-Cluster-Client-IP: 1.1.1.1",
        b"X-Originating-IP: 1.1.1.1",
        b"X-Remote-IP: 1.1.1.1", b"X-Remote-Addr: 1.1.1.1", b"Close: x",
    ],
)  # fmt: skip
def test_fields_between_agent_and_proxy_end_here(field: bytes) -> None:
    assert sent(field + b"\r\n") == BARE


def test_a_field_that_connection_lists_ends_here() -> None:
    assert sent(b"Connection: X-Private, close\r\nX-Private: 1\r\nX-Public: 2\r\n") == (
        b"GET / HTTP/1.1\r\nhost: a.example\r\nx-public: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    "listed",
    [b"Authorization", b"host", b"Content-Length", b"transfer-encoding", b"Cookie", b"X-Api-Key", b"content-type",
     b"x_api_key", b"Idempotency-Key", b"close, AUTHORIZATION", b"Accept",
     b"Prefer", b"If-Match", b"Expect", b"Range"],
)  # fmt: skip
def test_connection_may_not_list_what_the_origin_must_see(listed: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        sent(b"Connection: " + listed + b"\r\n")
    assert refused.value.code is Code.MALFORMED_REQUEST


@pytest.mark.parametrize("listed", [b"X-Vendor-Token", b"X_Vendor_Token", b"x-vendor.token"])
def test_connection_may_not_list_the_secrets_field(listed: bytes) -> None:
    with pytest.raises(RequestRefused):
        sent(b"Connection: " + listed + b"\r\n", remove=frozenset({b"x-vendor-token"}))


@pytest.mark.parametrize(
    "copy", [b"X-Vendor-Token", b"x-vendor-token", b"X_Vendor_Token", b"X-Vendor_Token", b"X.Vendor!Token"]
)
def test_the_agents_copy_of_the_secrets_field_is_removed(copy: bytes) -> None:
    fields = copy + b": forged\r\n" + copy + b": twice\r\nX-Vendor-Tokens: other\r\n"
    assert sent(fields, remove=frozenset({b"x-vendor-token"})) == (
        b"GET / HTTP/1.1\r\nhost: a.example\r\nx-vendor-tokens: other\r\n\r\n"
    )


def test_framing_is_never_copied() -> None:
    assert sent(b"Content-Length: 0\r\n") == BARE
    assert b"expect" not in sent(b"Content-Length: 5\r\nExpect: 100-continue\r\n")
    chunked = emit_head("POST", "/", "", b"a.example", (), content_length=None, chunked=True)
    assert chunked.public.endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("value", [b"a\r\nEvil: b", b"a\nb", b"a\0b", b" a", b"a ", b"\x7f"])
def test_a_secret_that_is_no_field_value_is_not_sent_and_not_shown(value: bytes) -> None:
    head = emit_head("GET", "/", "", b"a.example", (), content_length=None)
    with pytest.raises(ValueError, match="cannot be presented") as raised:
        head.wire((b"authorization", value))
    assert str(raised.value) == "the secret cannot be presented in a header field"
    with pytest.raises(ValueError, match="cannot be presented"):
        head.wire((b"bad name", b"x"))


def test_an_empty_chunk_does_not_end_the_body() -> None:
    assert emit_chunk(b"") == b""
    assert emit_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def origin(fields: bytes, method: str = "GET") -> ResponseHead:
    parser = ResponseParser(method)
    parser.feed(b"HTTP/1.1 200 Whatever\r\n" + fields + b"\r\n")
    assert parser.head is not None
    return parser.head


def test_a_response_keeps_its_fields_and_loses_the_connections() -> None:
    head = origin(
        b"Server: x\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nAlt-Svc: h3=evil\r\n"
        b"Proxy-Authenticate: Basic\r\nExeat-Call: forged\r\nUpgrade: h2c\r\nTrailer: X\r\nSet-Cookie: a=1\r\n"
        b"Set-Cookie: b=2\r\nTransfer-Encoding: chunked\r\n"
    )
    assert emit_response_head(head, content_length=5, add=((b"exeat-call", b"c_1"),)) == (
        b"HTTP/1.1 200 OK\r\nserver: x\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n"
        b"exeat-call: c_1\r\ncontent-length: 5\r\n\r\n"
    )


def test_a_response_of_unknown_length_is_chunked() -> None:
    head = origin(b"Content-Type: text/event-stream\r\n")
    assert emit_response_head(head, content_length=None, chunked=True, close=True) == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    )


@pytest.mark.parametrize("chunked", [True, False])
def test_no_content_has_no_framing(chunked: bool) -> None:
    parser = ResponseParser("GET")
    parser.feed(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")
    assert parser.head is not None
    emitted = emit_response_head(parser.head, content_length=5, chunked=chunked)
    assert emitted == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_an_unregistered_status_is_carried_without_a_phrase() -> None:
    parser = ResponseParser("GET")
    parser.feed(b"HTTP/1.1 599 Made Up\r\nContent-Length: 0\r\n\r\n")
    assert parser.head is not None
    emitted = emit_response_head(parser.head, content_length=0)
    assert emitted == b"HTTP/1.1 599 \r\ncontent-length: 0\r\n\r\n"
    again = ResponseParser("GET")
    again.feed(emitted)
    assert again.reusable
