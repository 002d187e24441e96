"""Whatever a connection says, it ends that connection alone: the others' records go on being written."""

import asyncio
import contextlib
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.sequencing.place import Place
from control.sequencing.server import Service
from control.sequencing.wire import MAX_FRAME, Frames, Identity, frame
from control.stores.lock_store import SqliteLockStore, open_register
from ledger import Ledger
from tests.control.sequencing.house import TENANT, Sequencer, denied, intent, outcome, records, remote

SECONDS = 30


def hello(identity: Identity, **changes: object) -> bytes:
    said = {"hello": 1, "role": "worker", "name": identity.name, "proof": identity.proof, "open": [], "withdrawn": []}
    return frame({**said, **changes})


def long(length: int) -> bytes:
    return struct.pack(">I", length)


def connected(folder: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS)
    connection.connect(str(folder / "ledger.sock"))
    return connection


def ended(connection: socket.socket) -> bool:
    """The other end has closed it."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return True


ME = Identity.make("w9")
BEFORE: dict[str, bytes] = {
    "no JSON": long(4) + b"{]{]",
    "no UTF-8": long(4) + b'"\xff"\n',
    "no object": long(2) + b"[]",
    "an empty frame": long(0),
    "an oversized frame": long(MAX_FRAME + 1),
    "the longest length": b"\xff\xff\xff\xff",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "another version": hello(ME, hello=2),
    "no version": frame({"name": ME.name, "proof": ME.proof}),
    "another's proof": hello(ME, proof="00" * 16),
    "a proof that is no text": hello(ME, proof=7),
    "no such role": hello(ME, role="root"),
    "open that is no list": hello(ME, open={}),
    "open of no numbers": hello(ME, open=[None]),
    "withdrawn of no pairs": hello(ME, withdrawn=[["c_1"]]),
    "nested beyond measure": long(200_000) + b'{"hello":' + b"[" * 199_991,
    "a submission before the hello": frame({"submit": []}),
    "one before the welcome": hello(ME) + frame({"submit": []}),
}
AFTER: dict[str, bytes] = {
    "an unknown kind": frame({"what": 1}),
    "no list": frame({"submit": 7}),
    "no item": frame({"submit": [7]}),
    "a short item": frame({"submit": [[1, "call.denied", TENANT]]}),
    "a number that is none": frame({"submit": [["1", "call.denied", TENANT, {}]]}),
    "a number twice": frame({"submit": [[1, "call.denied", TENANT, {}], [1, "call.denied", TENANT, {}]]}),
    "a number from before": frame({"submit": [[0, "call.denied", TENANT, {}]]}),
    "a type that is none": frame({"submit": [[1, 7, TENANT, {}]]}),
    "a tenant that is none": frame({"submit": [[1, "call.denied", None, {}]]}),
    "content that is none": frame({"submit": [[1, "call.denied", TENANT, []]]}),
    "again without content": frame({"again": [[1, TENANT, None, 0]]}),
    "again about an intent that is no number": frame({"again": [[1, TENANT, {"intent": []}, 0]]}),
    "again from before the beginning": frame({"again": [[1, TENANT, {}, -1]]}),
    "a second hello": hello(ME),
}


@pytest.fixture
def bystander(folder: Path, sequencer: Sequencer) -> Iterator[None]:
    """A worker that is there before and after, and is served both times."""
    worker = remote(folder)
    receipt = worker.submit("call.intent", TENANT, intent(worker.worker, "c_by")).result(SECONDS)
    sent = worker._line
    yield
    worker.submit("call.outcome", TENANT, outcome("c_by", receipt.seq)).result(SECONDS)
    assert worker._line is sent, "its connection has been cut"
    worker.close()
    assert {body["call"] for body in records(folder, "call.intent", "call.denied")} == {"c_by"}


@pytest.mark.usefixtures("bystander")
def test_garbage_before_the_welcome(folder: Path) -> None:
    for name, data in BEFORE.items():
        with connected(folder) as connection:
            connection.sendall(data)
            assert ended(connection), name


@pytest.mark.usefixtures("bystander")
def test_garbage_after_the_welcome(folder: Path) -> None:
    for name, data in AFTER.items():
        with connected(folder) as connection:
            connection.sendall(hello(Identity.make("w9")))
            assert b"welcome" in connection.recv(65536), name
            connection.sendall(data)
            assert ended(connection), name


@pytest.mark.usefixtures("bystander")
def test_halves_and_bytes_turned_over(folder: Path) -> None:
    """A cut at any place, and changed bytes: no record comes of it, and nobody else notices."""
    chance = random.Random(5)
    whole = hello(Identity.make("w9"))
    for _ in range(60):
        data = bytearray(whole)
        data[chance.randrange(4, len(data))] ^= 1 << chance.randrange(8)
        with connected(folder) as connection:
            connection.sendall(data[: chance.randrange(len(data))] if chance.random() < 0.5 else data)


@pytest.mark.usefixtures("sequencer")
def test_a_connection_that_says_nothing_is_closed(folder: Path) -> None:
    with connected(folder) as connection:
        connection.sendall(long(100))
        told = Frames().feed(connection.recv(65536))
        assert told == [{"refused": "no hello came"}]


def test_another_user_is_not_heard(folder: Path) -> None:
    """As whom the kernel vouches for; here by the check itself, for a test has one uid."""

    async def scene() -> bytes:
        register = open_register(folder / "register.sqlite")
        ledger = Ledger.open(
            folder / "ledger", keys=folder / "keys", lock_store=SqliteLockStore(register), keep_open=True
        )
        asked: list[int] = []

        def admits(uid: int) -> bool:
            asked.append(uid)
            return False

        service = Service(ledger, Place.of(folder), admits=admits)
        await service.start(folder / "ledger.sock")
        reader, writer = await asyncio.open_unix_connection(str(folder / "ledger.sock"))
        writer.write(hello(ME))
        try:
            said = await reader.read()
        except ConnectionResetError:
            said = b""
        writer.close()
        await service.stop()
        await asyncio.to_thread(ledger.close)
        register.close()
        assert len(asked) == 1
        return said

    assert asyncio.run(scene()) == b""


def test_frames_come_apart_at_any_byte() -> None:
    messages = [{"n": number, "text": "x" * number} for number in range(40)]
    stream = b"".join(frame(message) for message in messages)
    for size in (1, 2, 3, 5, 7, 64, 1000):
        frames = Frames()
        got = [one for at in range(0, len(stream), size) for one in frames.feed(stream[at : at + size])]
        assert got == messages
    assert json.loads(frame(messages[3])[4:]) == messages[3]


def stopped_taking(connection: socket.socket) -> bool:
    """True once no more fits in; False when it took everything."""
    for first in range(0, 1_000_000, 500):
        items = [[first + at, "call.outcome", TENANT, {}] for at in range(1, 501)]
        try:
            connection.sendall(frame({"submit": items}))
        except TimeoutError:
            return True
    return False


def test_a_slow_reader_is_not_listened_to(folder: Path, sequencer: Sequencer) -> None:
    """Who takes no answers gives no submissions: what is kept for it is bounded."""
    identity = Identity.make("w9")
    with connected(folder) as connection:
        connection.sendall(hello(identity))
        connection.recv(65536)
        connection.settimeout(1)
        assert stopped_taking(connection)
    other = remote(folder, "w8")
    other.submit("call.denied", TENANT, denied(other.worker, "c_1")).result(SECONDS)
    other.close()


def test_a_slow_reader_knows_what_was_taken_when_the_sequencer_ends_in_order(
    folder: Path, sequencer: Sequencer
) -> None:
    """It has all answers and the number from which on another sequencer takes over, however late it reads them."""
    identity = Identity.make("w9")
    with connected(folder) as connection:
        connection.sendall(hello(identity))
        frames = Frames()
        assert "welcome" in frames.feed(connection.recv(65536))[0]
        said = threading.Thread(target=_say_much, args=(connection, identity.name))
        said.start()
        time.sleep(0.5)
        assert sequencer.process is not None
        sequencer.process.terminate()
        time.sleep(1)
        answered, taken = set[int](), None
        while taken is None:
            data = connection.recv(4096)
            assert data, "it was closed before it said what it took"
            for message in frames.feed(data):
                answered |= {number for _, numbers in message.get("groups", []) for number, _ in numbers}
                answered |= {number for number, *_ in message.get("failed", [])}
                taken = message.get("bye", taken)
        assert taken > 0
        assert answered == set(range(1, taken + 1))
        assert sequencer.process.poll() is None, "it waits for who reads"
        connection.shutdown(socket.SHUT_RDWR)
        said.join(SECONDS)
    assert sequencer.process.wait(SECONDS) == 0


def _say_much(connection: socket.socket, worker: str) -> None:
    with contextlib.suppress(OSError):
        for number in range(1, 100_001):
            connection.sendall(frame({"submit": [[number, "call.denied", TENANT, denied(worker, f"c_{number}")]]}))
