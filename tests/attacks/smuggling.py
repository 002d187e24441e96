"""Requests that two parsers may read differently, each a whole stream of bytes inside one tunnel to saas.test."""

_BODY = b"hello=world"
_SECOND = b"GET /things/smuggled HTTP/1.1\r\nHost: saas.test\r\n\r\n"

_CODINGS = (
    b"chunked", b"Chunked", b"x, chunked", b"chunked, identity", b"\x0bchunked", b'"chunked"', b"chunked;q=1",
    b"chunked,", b"\tchunked", b"\xa0chunked", b"chunked\x85", b"identity", b"gzip, chunked", b"chunked chunked",
)  # fmt: skip
_FIELDS = (
    b"Transfer_Encoding: chunked", b"Transfer.Encoding: chunked", b"Content_Length: 0", b"Content-Length: +11",
    b"Content-Length: 11", b"Content-Length: 11, 11", b"Content-Length\xa0: 0", b"Content-Length: -0",
    b"X-A: b\x85Authorization: Bearer evil", b"X-A: b\x85Transfer-Encoding: chunked", b"X-A: b\x1cAuthorization: evil",
    b"X-A: \xe2\x80\xa8Authorization: evil", b"X-A: b\x0cAuthorization: evil", b"Authorization: Bearer mine",
    b"Authorization_: x", b"AUTHORIZATION: x", b"HTTP-Authorization: x", b"Connection: authorization",
    b"Connection: close, content-length", b"Connection: host", b"From: x", b"From root", b": x", b"X-A:", b"X:A: b",
    b"Expect: 100-continue", b"Expect: 200-ok", b"Upgrade: h2c", b"Max-Forwards: 0", b"Range: bytes=0-1",
    b"Content-Encoding: gzip", b"Cookie: a=b; c=d", b"!#$%&'*+.^_`|~: odd", b"X-HTTP-Method-Override: DELETE",
    b"X\xe9: a", b"X-Big: " + b"a" * 9_000, b"Host: evil.test", b"X-Original-URL: /things/9", b"TE: trailers",
    b"Trailer: X", b"Proxy-Authorization: Basic eA==", b"Keep-Alive: timeout=1", b"X-Forwarded-Host: evil.test",
)  # fmt: skip
_LINES = (
    b"GET /things/1 HTTP/1.1", b"HEAD /things/1 HTTP/1.1", b"DELETE /things/1 HTTP/1.1", b"PUT /things/%41 HTTP/1.1",
    b"POST /things/1?a=b&c=%0d%0aX:%20y HTTP/1.1", b"POST /things/1?a=[]{}|^`\\ HTTP/1.1",
    b"POST /things/1#/x HTTP/1.1",
    b"POST https://saas.test/things/1 HTTP/1.1", b"POST http://evil/things/1 HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"POST\t/things/1\tHTTP/1.1", b"POST  /things/1 HTTP/1.1", b"POST /things/1 HTTP/1.0", b"POST /things/1 HTTP/1.2",
    b"post /things/1 HTTP/1.1", b"POST /things/%2e%2e/x HTTP/1.1", b"POST /things/%252e HTTP/1.1",
    b"POST /things/\xe9 HTTP/1.1", b"POST /things/%C3%A9 HTTP/1.1", b"POST /things/a;b HTTP/1.1",
    b"POST /things/1??x HTTP/1.1", b"POST /things/1? HTTP/1.1", b"POST /things/a+b HTTP/1.1",
    b"POST /things/" + b"a" * 8_000 + b" HTTP/1.1", b"POST /things\\1 HTTP/1.1", b"POST //things/1 HTTP/1.1",
    b"POST /things/. HTTP/1.1", b"POST /things/%c3%a9?q=%7e HTTP/1.1", b"POST /things/1/ HTTP/1.1",
    b"POST /things/%EF%BC%8E%EF%BC%8E/x HTTP/1.1", b"POST /things/1?x HTTP/1.1 HTTP/1.1",
)  # fmt: skip
_CHUNKED = (
    b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n",
    b"000005\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n", b"-1\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\nhello", b"5\r\nhello!\r\n0\r\n\r\n", b"0\r\n\r\n" + _SECOND, b"5\r\nhello\r\n0\n\n",
    b"5\r\rhello\r\n0\r\n\r\n", b"00\r\n\r\n" + _SECOND, b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n" + _SECOND,
)  # fmt: skip
_WHOLE = (
    b"GET /things/1 HTTP/1.1\r\nHost: saas.test\r\nHost: saas.test\r\n\r\n",
    b"GET /things/1 HTTP/1.1\r\nHost: saas.test, evil\r\n\r\n",
    b"GET /things/1 HTTP/1.1\r\nHost: saas.test:443\r\n\r\n",
    b"GET /things/1 HTTP/1.1\r\nHOST: SAAS.TEST\r\n\r\n",
    b"GET /things/1 HTTP/1.1\r\n\r\n",
    b"\r\n" + _SECOND,
    b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n" + _SECOND,
    b"GET /things/1 HTTP/1.1\r\nHost: saas.test\r\nX: a\r\n b\r\n\r\n",
    b"GET /things/1 HTTP/1.1\nHost: saas.test\n\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /things/1\r\n",
)


def _request(
    line: bytes = b"POST /things/1 HTTP/1.1",
    *fields: bytes,
    body: bytes = _BODY,
    counted: bool = True,
) -> bytes:
    head = [line, b"Host: saas.test", *fields]
    if counted:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def payloads() -> list[tuple[str, bytes]]:
    """Names and bytes."""
    cases: list[tuple[str, bytes]] = []
    for coding in _CODINGS:
        field = b"Transfer-Encoding: " + coding
        cases.append((f"coding {coding!r}", _request(_POST, field, body=_CHUNKED[0], counted=False)))
        cases.append((f"coding {coding!r} with a length", _request(_POST, field, body=b"0\r\n\r\n" + _SECOND)))
    cases += [(f"field {field[:40]!r}", _request(_POST, field)) for field in _FIELDS]
    cases += [(f"line {line[:40]!r}", _request(line)) for line in _LINES]
    chunked = b"Transfer-Encoding: chunked"
    cases += [(f"chunks {body[:30]!r}", _request(_POST, chunked, body=body, counted=False)) for body in _CHUNKED]
    cases += [(f"whole {raw[:40]!r}", raw) for raw in _WHOLE]
    cases.append(("behind a denial", _request(b"POST /denied HTTP/1.1") + _SECOND))
    cases.append(("behind a refusal", _request(b"POST /things/../x HTTP/1.1") + _SECOND))
    cases.append(("behind a denied CONNECT with a body", _request(b"CONNECT saas.test:443 HTTP/1.1") + _SECOND))
    cases.append(("longer than its length", _request() + b"extra-bytes\r\n\r\n" + _SECOND))
    cases.append(("pipelined", _SECOND * 5))
    cases.append(("96 fields", _request(_POST, *(b"X-%d: 1" % number for number in range(96)))))
    return cases


_POST = b"POST /things/1 HTTP/1.1"
