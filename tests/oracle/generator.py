# ruff: noqa: E501 - tables, a row a line
"""Requests to throw at the gate, from a seed: sound ones in odd clothes, and attempts to be read in two ways.

A `Throw` is what goes over one tunnel in one go. Every request in it, the smuggled ones too, has its own `x-oracle-id`,
so that whatever an origin takes for a request can be told.
"""

import random
from dataclasses import dataclass

_UNRESERVED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
_PLAIN = _UNRESERVED + "!$&'()*+,=:@"
_TOKEN = b"!#$%&'*+.^_`|~-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ESCAPES = ("%20", "%7e", "%C3%A9", "%c3%a9", "%e2%82%ac", "%22", "%5B", "%41", "%3F", "%23", "%26", "%F0%9F%98%80")
_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
_WITH_BODY = (b"POST", b"PUT", b"PATCH", b"DELETE")
_VALUES = (
    b"",
    b"a",
    b"a, b",
    b'"quoted, \\" text"',
    b"caf\xc3\xa9",
    b"\xe2\x82\xac 3",
    b"a\tb",
    b"x" * 3000,
    b"%41%0d%0a",
    b"a=b; c=d",
)
_CODINGS = (
    b"chunked, identity", b"x, chunked", b"\x0bchunked", b'"chunked"', b"chunked;q=1", b"chunked,", b"\xa0chunked",
    b"identity", b"gzip, chunked", b"chunked chunked", b"xchunked", b"chunked\x85", b"",
)  # fmt: skip
_EVIL_FIELDS = (
    b"Transfer_Encoding: chunked", b"Transfer.Encoding: chunked", b"Content_Length: 0", b"Content-Length: +11",
    b"Content-Length: 11", b"Content-Length: 11, 11", b"Content-Length\xa0: 0", b"Content-Length : 0",
    b"Content-Length: -0", b"X-A: b\x85Authorization: Bearer evil", b"X-A: b\x1cAuthorization: evil", b"X-A: b\x0cc: d",
    b"X-A: b\x85Transfer-Encoding: chunked", b"Authorization: Bearer mine", b"Authorization_: x", b"AUTHORIZATION: x",
    b"Authoriz\x61tion: Basic eA==\r\nAuthorization: y", b"Connection: authorization", b"Connection: content-length",
    b"Connection: close, host", b": x", b"X Y: a", b"X\xe9: a", b"Expect: 200-ok",
    b"Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABk", b"Upgrade: websocket",
    b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /denied", b"X-Rewrite-URL: /denied", b"Host: evil.test",
    b"X-Forwarded-Host: evil.test", b"Proxy-Authorization: Basic eA==", b"Keep-Alive: timeout=1", b"TE: trailers",
    b"Trailer: X-T", b"Max-Forwards: 0", b"X: a\r\n folded", b"X: a\n b", b"X: a\rY: b", b"X: a\nY: b", b"X: \x00",
    b"X-Big: " + b"a" * 40_000, b"\r\n".join(b"X-%d: 1" % n for n in range(120)), b"Exeat-Call: mine",
)  # fmt: skip
_EVIL_LINES = (
    b"POST https://{host}/a HTTP/1.1", b"GET http://evil.test/a HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET\t/a HTTP/1.1",
    b"GET  /a HTTP/1.1", b"GET /a HTTP/1.0", b"GET /a HTTP/1.2", b"get /a HTTP/1.1", b"GET /a/../denied HTTP/1.1",
    b"GET /%2e%2e/denied HTTP/1.1", b"GET /a%2fb HTTP/1.1", b"GET /a%5cb HTTP/1.1", b"GET /a%00 HTTP/1.1",
    b"GET /%252e%252e HTTP/1.1", b"GET /\xe9 HTTP/1.1", b"GET /a;b=c HTTP/1.1", b"GET //a HTTP/1.1", b"GET /a/./b HTTP/1.1",
    b"GET /a\\b HTTP/1.1", b"GET /a#b HTTP/1.1", b"GET /%c0%ae HTTP/1.1", b"GET /%zz HTTP/1.1", b"TRACE /a HTTP/1.1",
    b"CONNECT {host}:443 HTTP/1.1", b"PRI * HTTP/2.0", b"COPY /a HTTP/1.1", b"GET /?_method=DELETE HTTP/1.1",
    b"GET /a?x=%00 HTTP/1.1", b"GET /a HTTP/1.1 HTTP/1.1", b"GET /a", b"GET /" + b"a" * 9000 + b" HTTP/1.1",
    b"GET /denied/x HTTP/1.1",
)  # fmt: skip
_EVIL_CHUNKS = (
    b"5;a=b\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX-T: y\r\n\r\n", b"-1\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffff\r\nhello", b"5\r\nhello!\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\n\n", b"5\r\rhello\r\n0\r\n\r\n", b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n", b"\r\n5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0;x\r\n\r\n", b"5\r\nhello",
)  # fmt: skip


@dataclass(frozen=True)
class Throw:
    """Bytes for one tunnel."""

    kind: str
    ids: tuple[bytes, ...]
    pieces: tuple[bytes, ...]
    """Written one after the other."""
    methods: tuple[bytes, ...] = ()
    """Of the answers to wait for, in order; none: whatever comes is read until it ends or pauses."""
    hang_up: bool = False
    """The agent leaves at once after the last piece."""


class Generator:
    """Throws for one host. The same seed gives the same throws."""

    def __init__(self, seed: str, host: str, prefix: str) -> None:
        self._random = random.Random(seed)
        self._host = host.encode()
        self._prefix = prefix
        self._count = 0

    def throws(self, requests: int) -> list[Throw]:
        """Until so many requests have been made."""
        made = []
        while self._count < requests:
            how = self._random.random()
            if how < 0.6:
                made.append(self._sound())
            elif how < 0.7:
                made.append(self._pipelined())
            else:
                made.append(self._hostile())
        return made

    def _id(self) -> bytes:
        self._count += 1
        return f"{self._prefix}-{self._count}".encode()

    # sound requests

    def _target(self) -> bytes:
        pick = self._random
        path = ""
        for _ in range(pick.randint(1, 4)):
            segment = "".join(
                pick.choice(_PLAIN) if pick.random() < 0.85 else pick.choice(_ESCAPES)
                for _ in range(pick.randint(1, 12))
            )
            path += "/" + segment.replace("..", "x.").lstrip(".") + pick.choice("az0~")
        if pick.random() < 0.15:
            path += "/"
        if pick.random() < 0.5:
            odd = _PLAIN + ";/?[]{}|^`\\"
            path += "?" + "".join(
                pick.choice(odd)
                if pick.random() < 0.8
                else pick.choice((*_ESCAPES, "%0D%0A", "%2F", "%00"[:0] or "%3D"))
                for _ in range(pick.randint(0, 30))
            )
        return path.encode()

    def _fields(self) -> list[bytes]:
        pick = self._random
        fields = []
        for _ in range(pick.randint(0, 6)):
            name = b"X-" + bytes(pick.choice(_TOKEN) for _ in range(pick.randint(1, 14)))
            if pick.random() < 0.7:
                name = b"X-Q" + name.translate(None, b"!#$%&'*+.^_`|~")[2:]
            fields += [
                name + b":" + pick.choice((b" ", b"", b"\t ")) + pick.choice(_VALUES) + pick.choice((b"", b" "))
                for _ in range(pick.choice((1, 1, 1, 2, 3)))
            ]
        fields += pick.sample((b"Accept: */*", b"User-Agent: oracle", b"Cookie: a=b; c=d", b"TE: trailers", b"X-Forwarded-For: 1.2.3.4",
                               b"Connection: keep-alive, x-gone\r\nX-Gone: a", b"Authorization: Bearer the-agents-own",
                               b"Content-Type: text/plain", b"Range: bytes=0-0", b"Keep-Alive: 5", b"Via: 1.1 x"), pick.randint(0, 3))  # fmt: skip
        pick.shuffle(fields)
        return fields

    def _body(self) -> bytes:
        pick = self._random
        return pick.choice(
            (
                b"",
                b"a",
                b"0\r\n\r\n",
                b"GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n",
                pick.randbytes(pick.randint(1, 4000)),
            )
        )

    def _request(self, number: bytes) -> tuple[bytes, bytes]:
        pick = self._random
        method = pick.choice(_METHODS)
        line = method + b" " + self._target() + b" HTTP/1.1"
        fields = [
            pick.choice((b"Host: ", b"host:", b"HOST: "))
            + pick.choice((self._host, self._host.upper(), self._host + b":443"))
        ]
        fields += [*self._fields(), b"X-Oracle-Id: " + number]
        body = b""
        if method in _WITH_BODY:
            content = self._body()
            if pick.random() < 0.5:
                body = self._chunked(content)
                fields.append(pick.choice((b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked")))
            else:
                body = content
                fields.append(
                    pick.choice((b"Content-Length: %d", b"content-length:%d", b"Content-Length: 0%d")) % len(content)
                )
            if pick.random() < 0.1:
                fields.append(b"Expect: 100-continue")
        return method, b"\r\n".join([line, *fields]) + b"\r\n\r\n" + body

    def _chunked(self, content: bytes) -> bytes:
        pick, out, at = self._random, b"", 0
        while at < len(content):
            piece = content[at : at + pick.choice((1, 2, 7, 500, 5000))] if at < 50 else content[at : at + 900]
            out += pick.choice((b"%x", b"%X", b"00%x")) % len(piece) + b"\r\n" + piece + b"\r\n"
            at += len(piece)
        return out + pick.choice((b"0", b"000")) + b"\r\n\r\n"

    def _cut(self, raw: bytes) -> tuple[bytes, ...]:
        if self._random.random() < 0.6 or len(raw) < 4:
            return (raw,)
        cuts = sorted(self._random.sample(range(1, len(raw)), min(3, len(raw) - 2)))
        return tuple(raw[a:b] for a, b in zip((0, *cuts), (*cuts, len(raw)), strict=True))

    def _sound(self) -> Throw:
        number = self._id()
        method, raw = self._request(number)
        return Throw("sound", (number,), self._cut(raw), (method,))

    def _pipelined(self) -> Throw:
        numbers = tuple(self._id() for _ in range(self._random.randint(2, 5)))
        made = [self._request(number) for number in numbers]
        return Throw(
            "pipelined", numbers, self._cut(b"".join(raw for _, raw in made)), tuple(method for method, _ in made)
        )

    # hostile requests

    def _plain(self, number: bytes, line: bytes, *fields: bytes) -> bytes:
        lines = (line.replace(b"{host}", self._host), b"Host: " + self._host, b"X-Oracle-Id: " + number, *fields)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _hostile(self) -> Throw:
        pick = self._random
        first, second = self._id(), self._id()
        inner = self._plain(second, b"GET /smuggled HTTP/1.1")
        post = b"POST /a HTTP/1.1"
        kinds = {
            "coding": lambda: (
                self._plain(first, post, b"Transfer-Encoding: " + pick.choice(_CODINGS)) + b"0\r\n\r\n" + inner
            ),
            "CL.TE": lambda: (
                self._plain(first, post, b"Content-Length: %d" % (5 + len(inner)), b"Transfer-Encoding: chunked")
                + b"0\r\n\r\n"
                + inner
            ),
            "TE.CL": lambda: (
                self._plain(first, post, b"Transfer-Encoding: chunked", b"Content-Length: 4")
                + b"%x\r\n" % len(inner)
                + inner
                + b"\r\n0\r\n\r\n"
            ),
            "TE.TE": lambda: (
                self._plain(first, post, b"Transfer-Encoding: chunked", b"Transfer-Encoding: " + pick.choice(_CODINGS))
                + b"0\r\n\r\n"
                + inner
            ),
            "CL.CL": lambda: self._plain(first, post, b"Content-Length: 0", b"Content-Length: %d" % len(inner)) + inner,
            "CL.0": lambda: self._plain(first, b"GET /a HTTP/1.1", b"Content-Length: %d" % len(inner)) + inner,
            "no length": lambda: self._plain(first, post) + inner,
            "field": lambda: (
                self._plain(first, post, pick.choice(_EVIL_FIELDS), b"Content-Length: 11") + b"hello=world" + inner
            ),
            "line": lambda: self._plain(first, pick.choice(_EVIL_LINES)) + inner,
            "chunks": lambda: (
                self._plain(first, post, b"Transfer-Encoding: chunked") + pick.choice(_EVIL_CHUNKS) + inner
            ),
            "bare LF": lambda: self._plain(first, post, b"Content-Length: 0").replace(b"\r\n", b"\n") + inner,
            "blank lines": lambda: b"\r\n" + self._plain(first, b"GET /a HTTP/1.1") + inner,
            "no host": lambda: b"GET /a HTTP/1.1\r\nX-Oracle-Id: " + first + b"\r\n\r\n" + inner,
            "longer": lambda: self._plain(first, post, b"Content-Length: 3") + b"abc" + pick.randbytes(20) + inner,
            "shorter": lambda: self._plain(first, post, b"Content-Length: 50") + b"abc",
            "unfinished": lambda: self._plain(first, post, b"Transfer-Encoding: chunked") + b"a\r\nabc",
        }
        kind = pick.choice(list(kinds))
        raw = kinds[kind]()
        return Throw(kind, (first, second), self._cut(raw), hang_up=kind in {"shorter", "unfinished"})
