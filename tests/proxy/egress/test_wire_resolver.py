"""Names: bounded threads, one look-up at a time a name, brief memory."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from proxy.egress.errors import UpstreamTimeout, UpstreamUnreachable
from proxy.egress.resolver import MAX_ADDRESSES, Resolver, system_lookup

pytestmark = pytest.mark.anyio


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Look-ups that wait for it end with the test, so that no thread outlives it."""
    event = threading.Event()
    yield event
    event.set()


def counting(answer: tuple[str, ...] | Exception) -> tuple[list[str], Callable[[str, int], tuple[str, ...]]]:
    asked: list[str] = []

    def lookup(host: str, port: int) -> tuple[str, ...]:
        asked.append(host)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return asked, lookup


async def test_an_answer_is_remembered_briefly() -> None:
    asked, lookup = counting(("192.0.2.1", "192.0.2.2"))
    resolver = Resolver(lookup, ttl_seconds=0.05)
    for _ in range(3):
        assert await resolver.resolve("a.test", 443) == ("192.0.2.1", "192.0.2.2")
    assert asked == ["a.test"]
    await asyncio.sleep(0.06)
    await resolver.resolve("a.test", 443)
    assert len(asked) == 2
    resolver.forget("a.test", 443)
    await resolver.resolve("a.test", 443)
    assert len(asked) == 3
    resolver.close()


@pytest.mark.parametrize(
    "answer",
    [socket.gaierror(-2, "Name or service not known"), OSError("broken"), UnicodeError("label too long"), (),
     tuple(f"192.0.2.{i}" for i in range(MAX_ADDRESSES + 1))],
    ids=lambda answer: type(answer).__name__ + str(len(str(answer))),
)  # fmt: skip
async def test_no_answer_is_unreachable_and_not_remembered(answer: tuple[str, ...] | Exception) -> None:
    asked, lookup = counting(answer)
    resolver = Resolver(lookup)
    for _ in range(2):
        with pytest.raises(UpstreamUnreachable) as raised:
            await resolver.resolve("a.test", 443)
        assert raised.value.detail == "the name does not resolve"
        assert "a.test" in raised.value.operator_detail
    assert len(asked) == 2
    resolver.close()


async def test_callers_at_once_share_one_look_up_and_cancel_only_themselves(gate: threading.Event) -> None:
    asked: list[str] = []

    def lookup(host: str, port: int) -> tuple[str, ...]:
        asked.append(host)
        gate.wait(5)
        return ("192.0.2.1",)

    resolver = Resolver(lookup)
    callers = [asyncio.create_task(resolver.resolve("a.test", 443)) for _ in range(5)]
    await asyncio.sleep(0.02)
    callers[0].cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*callers[1:]) == [("192.0.2.1",)] * 4
    assert callers[0].cancelled()
    assert asked == ["a.test"]
    resolver.close()


async def test_a_dead_name_server_times_out_and_takes_only_its_own_threads(gate: threading.Event) -> None:
    def lookup(host: str, port: int) -> tuple[str, ...]:
        gate.wait(5)
        return ("192.0.2.1",)

    resolver = Resolver(lookup, timeout_seconds=0.02, threads=2)
    for number in range(8):
        with pytest.raises(UpstreamTimeout):
            await resolver.resolve(f"{number}.test", 443)
    with pytest.raises(UpstreamUnreachable):
        await resolver.resolve("one-too-many.test", 443)
    assert sum(thread.name.startswith("exeat-resolve") for thread in threading.enumerate()) == 2
    gate.set()
    resolver.close()


async def test_the_memory_is_bounded() -> None:
    asked, lookup = counting(("192.0.2.1",))
    resolver = Resolver(lookup, max_names=3)
    for name in ("a", "b", "c", "d", "d", "b", "a"):
        await resolver.resolve(name, 443)
    assert asked == ["a", "b", "c", "d", "a"]
    resolver.close()


async def test_the_systems_resolver_gives_each_address_once() -> None:
    addresses = await asyncio.to_thread(system_lookup, "localhost", 443)
    assert set(addresses) <= {"127.0.0.1", "::1"}
    assert addresses
    assert len(set(addresses)) == len(addresses)
