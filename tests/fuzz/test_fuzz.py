"""A bounded run of the fuzz targets; the long one is `make fuzz`."""

from dataclasses import replace

import pytest

from tests.fuzz.__main__ import TARGETS, hunt
from tests.fuzz.mutations import mutated, seeds
from tests.fuzz.targets import Finding, fuzz_response, read_requests, same_by_h11

COUNT = 4000
SEED = 20261125


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str) -> None:
    target, files = TARGETS[name]
    report = hunt(target, seeds(files), SEED, COUNT)
    assert report.findings == {}, f"seed {SEED}"
    assert report.executions >= COUNT
    assert report.accepted > COUNT // 50, "a run in which nothing is accepted proves nothing"


def test_the_same_seed_gives_the_same_bytes() -> None:
    corpus = seeds(("framing",))
    assert list(mutated(corpus, 3, 50)) == list(mutated(corpus, 3, 50)) != list(mutated(corpus, 4, 50))


# What once was a finding is tried for ever: a framing field among the trailers; a 205 refused by how it was split.
@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.1 205 Reset\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\r\n0\r\n\r\nhi",
    ],
)
def test_what_was_found_once(data: bytes) -> None:
    fuzz_response(data)


def test_a_difference_between_two_readers_is_a_finding() -> None:
    data = b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 2\r\n\r\nhi"
    read = read_requests([data], connect=False)
    ((head, _),) = read.messages
    same_by_h11(data, read)
    for other in ((head, b"h"), (replace(head, method="PUT"), b"hi"), (replace(head, headers=head.headers[1:]), b"hi")):
        with pytest.raises(Finding):
            same_by_h11(data, replace(read, messages=(other,)))
