"""The bytes of the one call that is measured, known to both ends."""

from typing import Final

SECRET: Final = "bench-7f3c1f0e5b6d4a52"
HEADER: Final = f"Authorization: Bearer {SECRET}\r\n".encode()
"""What the product attaches. To peers that attach nothing the client sends it itself: the origin sees the same."""

PATH: Final = "/v1/refunds"


def _padded(text: str, size: int) -> bytes:
    return text.replace("PAD", "x" * (size - len(text) + 3)).encode()


REQUEST_BODY: Final = _padded('{"charge":"ch_3MmlLrLkdIwHu7ix0snN0B15","amount":1099,"reason":"PAD"}', 300)
REPLY_BODY: Final = _padded(
    '{"id":"re_1Nispe2eZvKYlo2Cd31jOCgZ","object":"refund","amount":1099,"currency":"usd","status":"succeeded","note":"PAD"}',
    446,
)
REPLY: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(REPLY_BODY) + REPLY_BODY
)


def request(authority: str, extra: bytes) -> bytes:
    """One POST of 300 bytes as an SDK sends it, inside the tunnel; `extra` is whole header lines."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(REQUEST_BODY)}\r\n"
    )
    return head.encode() + extra + b"\r\n" + REQUEST_BODY


def connect(authority: str, extra: bytes) -> bytes:
    """The CONNECT that opens a tunnel; `extra` is whole header lines."""
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n".encode() + extra + b"\r\n"
