"""Bytes to try: the vectors as seeds, and structured mutations of them by one printed seed."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

VECTORS = Path(__file__).parents[1] / "proxy" / "http" / "vectors"
REQUEST_FILES = ("request_line", "framing", "headers", "upgrades", "door")

_LINES = [
    b"Host: api.example.com",
    b"Host: evil.example",
    b"Content-Length: 2",
    b"Content-Length: 0",
    b"content-length:\t2 ",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"transfer_encoding: chunked",
    b"Connection: close",
    b"Connection: keep-alive, x-a",
    b"Connection: content-length",
    b"Expect: 100-continue",
    b"Upgrade: websocket",
    b"Authorization: Bearer mine",
    b"X_Api_Key: mine",
    b"Proxy-Authorization: Basic bTpt",
    b"X-Forwarded-For: 127.0.0.1",
    b"Exeat-Call: c_2",
    b'Alt-Svc: h2=":9"',
    b"TE: trailers",
    b"Trailer: x",
    b"Content-Type: text/html, a/b",
    b"Location: //evil.example",
    b" folded: x",
    b"X-A: \x0b",
    b"X-B: caf\xe9",
    b": empty",
    b"X-C:",
]
_TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"%2e",
    b"%2f",
    b"%00",
    b"..",
    b"//",
    b"/./",
    b"?",
    b"#",
    b"@",
    b"\\",
    b"0\r\n\r\n",
    b"2\r\nhi\r\n",
    b"2;x=y\r\nhi\r\n",
    b"ffffffffffffffff\r\n",
    b"0x2\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    b"GET http://api.example.com/a?b=c HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 204 N\r\n",
    b"HTTP/1.0 ",
    b"_method=PUT",
    b"[::1]",
    b"127.1",
    b":443",
]


def seeds(files: tuple[str, ...]) -> list[bytes]:
    """The bytes of every vector in these files."""
    found: list[bytes] = []
    for file in files:
        for case in json.loads((VECTORS / f"{file}.json").read_text(encoding="ascii"))["cases"]:
            text = case["bytes"] + case.get("repeat", "") * case.get("times", 1)
            if len(text) <= 4096:  # floods have tests of their own, and cost a fuzzer its speed
                found.append(text.encode("latin-1"))
    return found


def mutated(corpus: list[bytes], seed: int, count: int) -> Iterator[bytes]:
    """So many inputs; the same for the same corpus and seed."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
            _mutate(data, corpus, chance)
        yield bytes(data[:8192])


def _mutate(data: bytearray, corpus: list[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(9):
        case 0 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 1 if at < len(data):
            data[at] = chance.choice(b"\r\n\0\t :;,/%0129aAfF-_\x7f\x80\xff")
        case 2:
            data[at:at] = chance.choice(_TOKENS)
        case 3:
            del data[at : at + chance.choice((1, 1, 2, 4, 16))]
        case 4:
            _insert_line(data, chance)
        case 5:  # a line twice
            lines = bytes(data).split(b"\r\n")
            line = chance.choice(lines)
            lines.insert(chance.randrange(len(lines) + 1), line)
            data[:] = b"\r\n".join(lines)
        case 6:  # two lines change places
            lines = bytes(data).split(b"\r\n")
            one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
            lines[one], lines[other] = lines[other], lines[one]
            data[:] = b"\r\n".join(lines)
        case 7:  # the head of one, the tail of another
            other_bytes = chance.choice(corpus)
            data[at:] = other_bytes[chance.randrange(len(other_bytes) + 1) :]
        case _:
            data += chance.choice(corpus) if chance.random() < 0.5 else chance.choice(_TOKENS)


def _insert_line(data: bytearray, chance: random.Random) -> None:
    ends = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\r\n"]
    if ends:
        at = chance.choice(ends) + 2
        data[at:at] = chance.choice(_LINES) + b"\r\n"
