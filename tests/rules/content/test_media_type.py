"""A Content-Type is read in one way or not at all."""

import pytest

from rules.content.media_type import read_media_type
from rules.content.refused import ContentRefused


@pytest.mark.parametrize(
    ("raw", "essence", "parameters"),
    [
        (b"application/json", "application/json", ()),
        (b"Application/JSON; Charset=UTF-8", "application/json", (("charset", "UTF-8"),)),
        (b'multipart/form-data; boundary="a b"', "multipart/form-data", (("boundary", "a b"),)),
        (b"application/vnd.github+json;version=1", "application/vnd.github+json", (("version", "1"),)),
    ],
)
def test_what_is_read(raw: bytes, essence: str, parameters: object) -> None:
    found = read_media_type(raw)
    assert (found.essence, found.parameters) == (essence, parameters)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"json",
        b"application/json, text/plain",
        b"application/json;",
        b"application/json; charset",
        b"application/json; charset=utf-16",
        b"application/json; charset=utf-7",
        b"application/json; charset=utf-8; charset=utf-16",
        b'application/json; charset="ut\\f-8"',
        b"application/json charset=utf-8",
        b"application/x-www-form-urlencoded\xa0",
        b"application/json; a=" + b"b" * 300,
    ],
)
def test_what_is_refused(raw: bytes) -> None:
    with pytest.raises(ContentRefused):
        read_media_type(raw)


def test_kinds() -> None:
    assert read_media_type(b"application/merge-patch+json").is_json
    assert not read_media_type(b"application/jsonl").is_json
    assert read_media_type(b"application/x-www-form-urlencoded; charset=utf-8").is_form
    assert read_media_type(b"multipart/form-data; boundary=b").is_multipart_form
