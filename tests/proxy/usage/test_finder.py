"""One member of a JSON object, however the text is cut; and whatever comes, no exception."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage.finder import MAX_DEPTH, MAX_FOUND, MAX_STEPS, Finder

KEYS = st.sampled_from(["usage", "response", "x", "us\\age", 'us"age', "", "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 10**6) | st.text(max_size=12) | st.just('{"usage":{"input":1}}'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
PATHS = st.sampled_from([("usage",), ("response", "usage"), ("response", "x", "usage")])


def found(path: tuple[str, ...], *pieces: bytes) -> bytes | None:
    finder = Finder(path)
    for piece in pieces:
        finder.feed(piece)
    return finder.end()


def at(value: object, path: tuple[str, ...]) -> tuple[bool, object]:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return False, None
        value = value[key]
    return True, value


@given(VALUES, PATHS, st.lists(st.integers(0, 400), max_size=6), st.booleans(), st.sampled_from([None, 1]))
def test_it_finds_what_a_parser_finds_however_the_text_is_cut(
    value: object, path: tuple[str, ...], cuts: list[int], ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    there, expected = at(value, path)
    got = found(path, *pieces)
    assert (got is not None) == there
    if got is not None:
        assert json.loads(got) == expected


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b'{"usage":', b'"', b"{", b"}", b"\\", b",", b"[]"])), PATHS)
def test_any_bytes_give_something_or_nothing(pieces: list[bytes], path: tuple[str, ...]) -> None:
    got = found(path, *pieces)
    assert got is None or len(got) <= MAX_FOUND
    assert got == found(path, b"".join(pieces)), "and it does not matter how they are cut"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("said in a text that a model wrote", b'{"a": "\\"usage\\":{\\"i\\":1}"}'),
        ("said elsewhere", b'{"a": {"usage": 1}}'),
        ("said in a list", b'[{"usage": 1}]'),
        ("said twice", b'{"usage": 1, "usage": 2}'),
        ("said twice, once with an escape", b'{"usage": 1, "us\\u0061ge": 2}'),
        ("not whole", b'{"usage": 1'),
        ("brackets that do not match", b'{"usage": [1}]'),
        ("something behind it", b'{"usage": 1}{"usage": 2}'),
        ("too deep", b'{"usage": 1, "a": ' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}"),
        ("too long", b'{"usage": "' + b"x" * MAX_FOUND + b'"}'),
        ("too much", b'{"usage": 1, "a": [' + b"[[[]]]," * MAX_STEPS + b"1]}"),
    ],
)
def test_what_is_not_told_once_and_clearly_is_not_told(name: str, text: bytes) -> None:
    assert found(("usage",), text) is None


def test_an_escaped_key_is_the_key() -> None:
    assert found(("usage",), b'{"us\\u0061ge": 7}') == b"7"


def test_it_keeps_nothing_of_a_long_text_but_what_it_looks_for() -> None:
    finder = Finder(("usage",))
    finder.feed(b'{"data":[')
    for _ in range(1000):
        finder.feed(b'{"embedding":[' + b"0.125," * 1536 + b'1],"text":"a\\"b"},')
        assert finder.held == 0
    finder.feed(b'1],"usage":{"prompt_tokens":8}}')
    assert finder.end() == b'{"prompt_tokens":8}'
