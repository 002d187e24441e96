"""Messages between control and workers: what is written is read back, and nothing else is a message."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.fleet.frames import MAX_BYTES, FrameInvalid, Message, decoded, read_message
from control.fleet.metrics import summed

pytestmark = pytest.mark.anyio

bodies = st.dictionaries(st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=5)
messages = st.builds(
    lambda kind, body, blobs: Message(kind, body, tuple(blobs)),
    st.text(max_size=12),
    bodies,
    st.lists(st.binary(max_size=100), max_size=5),
)


async def read(data: bytes) -> Message | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_message(reader)


@given(message=messages)
def test_what_is_written_is_read(message: Message) -> None:
    assert asyncio.run(read(message.encoded())) == message


@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    try:
        asyncio.run(read(data))
    except FrameInvalid:
        return


@given(message=messages, cut=st.integers(0, 400))
def test_half_a_message_is_none(message: Message, cut: int) -> None:
    data = message.encoded()
    assert asyncio.run(read(data[: min(cut, len(data) - 1)])) is None


async def test_a_message_that_says_it_is_huge_is_refused_before_it_is_read() -> None:
    with pytest.raises(FrameInvalid, match="says it has"):
        await read((MAX_BYTES + 1).to_bytes(4, "big") + (5).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "head",
    [
        b"[]",
        b'{"kind":1,"body":{},"blobs":[]}',
        b'{"kind":"a","body":[],"blobs":[]}',
        b'{"kind":"a","body":{},"blobs":[1]}',
        b'{"kind":"a","body":{},"blobs":[-1,1]}',
        b'{"kind":"a","body":{},"blobs":[true]}',
        b'{"kind":"a","body":{}}',
        b"[" * 100_000,
    ],
)
def test_a_head_that_does_not_fit_is_refused(head: bytes) -> None:
    with pytest.raises(FrameInvalid):
        decoded(len(head), head)


def test_a_secret_in_a_message_is_in_no_string_of_it() -> None:
    assert "hunter2" not in repr(Message("snapshot", {}, (b"hunter2",)))


def test_metrics_of_several_workers_are_added() -> None:
    one = '# TYPE exeat_calls counter\nexeat_calls{code="allow"} 3\nexeat_live 1\n'
    two = '# TYPE exeat_calls counter\nexeat_calls{code="allow"} 4\nexeat_calls{code="deny"} 1\nexeat_live 0.5\n'
    assert summed([one, two]) == (
        '# TYPE exeat_calls counter\nexeat_calls{code="allow"} 7\nexeat_live 1.5\nexeat_calls{code="deny"} 1\n'
    )
    assert summed([]) == ""
