"""Content codings: one reading or none, and never more memory than the bound."""

import gzip
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.decoding import decode_content
from proxy.http.errors import RequestRefused
from rules.codes import Code

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
ENCODERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": brotli.compress,
    b"zstd": zstd.compress,
}
# Independent of ours: each library's own one-shot reader.
READERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.decompress,
    b"deflate": zlib.decompress,
    b"br": brotli.decompress,
    b"zstd": zstd.decompress,
}
codings = pytest.mark.parametrize("coding", ENCODERS)


def refusal(coding: bytes, data: bytes, most: int = MIB) -> Code:
    with pytest.raises(RequestRefused) as refused:
        decode_content(coding, data, most)
    return refused.value.code


@codings
@given(data=st.binary(max_size=4096))
def test_what_was_encoded_comes_back(coding: bytes, data: bytes) -> None:
    assert decode_content(coding, ENCODERS[coding](data), MIB) == data
    assert decode_content(coding.upper(), ENCODERS[coding](data), MIB) == data


@codings
@given(data=st.binary(max_size=512), at=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_any_bytes_are_read_as_everybody_reads_them_or_refused(
    coding: bytes, data: bytes, at: float, byte: int, cut: bool
) -> None:
    encoded = bytearray(ENCODERS[coding](data))
    index = int(at * (len(encoded) - 1))
    if cut:
        del encoded[index:]
    else:
        encoded[index] = byte
    try:
        ours = decode_content(coding, bytes(encoded), MIB)
    except RequestRefused:
        return
    assert ours == READERS[coding](bytes(encoded))


@codings
def test_cut_anywhere_or_followed_by_anything_it_is_refused(coding: bytes) -> None:
    encoded = ENCODERS[coding](random.Random(7).randbytes(300) * 3)
    for length in range(len(encoded)):
        assert refusal(coding, encoded[:length]) is Code.ENCODING_REFUSED
    for tail in (b"x", b"\0", b"\0" * 8, b"{}"):
        assert refusal(coding, encoded + tail) is Code.ENCODING_REFUSED


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
def test_every_member_is_read_and_not_only_the_first(coding: bytes) -> None:
    """The origin reads them all; a proxy that reads one judges another body."""
    encode = ENCODERS[coding]
    assert decode_content(coding, encode(b"harmless") + encode(b'{"amount": 1e9}'), MIB) == b'harmless{"amount": 1e9}'
    assert refusal(coding, encode(b"") * 10_000) is Code.ENCODING_REFUSED


@pytest.mark.parametrize("coding", [b"deflate", b"br"])
def test_a_second_stream_is_refused_where_the_coding_has_but_one(coding: bytes) -> None:
    assert refusal(coding, ENCODERS[coding](b"one") + ENCODERS[coding](b"two")) is Code.ENCODING_REFUSED


@codings
def test_a_bomb_costs_no_more_memory_than_the_bound(coding: bytes) -> None:
    bomb = ENCODERS[coding](bytes(200 * MIB))
    tracemalloc.start()
    assert refusal(coding, bomb) is Code.BODY_TOO_LARGE
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB
    assert len(decode_content(coding, ENCODERS[coding](bytes(MIB)), MIB)) == MIB
    assert refusal(coding, ENCODERS[coding](bytes(MIB + 1))) is Code.BODY_TOO_LARGE


@pytest.mark.parametrize(
    "coding", [b"gzip, gzip", b"gzip,br", b"identity", b"compress", b"", b"utf-8", b"rot13", b"zlib", b"gzip;q=1", b"*"]
)
def test_stacked_and_unknown_codings_are_refused(coding: bytes) -> None:
    assert refusal(coding, gzip.compress(b"x")) is Code.ENCODING_REFUSED


def test_deflate_without_its_header_is_refused() -> None:
    """Some readers guess raw deflate, others fail: two readings."""
    raw = zlib.compressobj(wbits=-15)
    assert refusal(b"deflate", raw.compress(b"x") + raw.flush()) is Code.ENCODING_REFUSED
