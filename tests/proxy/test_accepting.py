"""The door stays open whatever one newcomer, or a want of files, does to it; and the loop goes round."""

import asyncio
import errno
import socket

import pytest

from proxy import accepting
from proxy.accepting import Acceptor

pytestmark = pytest.mark.anyio


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"hello")
        transport.close()


async def greeting(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_a_newcomer_that_cannot_be_served_closes_no_door(caplog: pytest.LogCaptureFixture) -> None:
    failing = [True]

    def protocol() -> asyncio.Protocol:
        if failing.pop() if failing else False:
            raise RuntimeError("no memory for this one")
        return Greeter()

    with socket.create_server(("127.0.0.1", 0)) as bound:
        acceptor = Acceptor(bound, protocol, lambda: 0.0)
        assert await greeting(bound.getsockname()) == b"", "its socket was closed"
        assert await greeting(bound.getsockname()) == b"hello"
        await acceptor.close()
    assert "could not be served" in caplog.text


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EINVAL, errno.ECONNABORTED])
async def test_an_error_of_accept_neither_ends_it_nor_holds_the_loop(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(accepting, "_AGAIN_SECONDS", 0.01)
    accept, errors = socket.socket.accept, 50

    def failing(sock: socket.socket) -> tuple[socket.socket, object]:
        nonlocal errors
        if errors:
            errors -= 1
            raise OSError(number, "said the kernel")  # without having waited, as an error that stays does
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", failing)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        acceptor = Acceptor(bound, Greeter, lambda: 0.0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert errors > 0, "others had their visit to the loop in between"
        assert await greeting(bound.getsockname()) == b"hello"
        await acceptor.close()


async def test_a_newcomer_at_the_moment_of_closing_is_no_error() -> None:
    """It is found in the very turn of the loop in which nobody is taken any more."""
    loop, errors = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    try:
        with socket.create_server(("127.0.0.1", 0)) as bound:
            acceptor = Acceptor(bound, asyncio.Protocol, lambda: 0.0)
            await asyncio.sleep(0.01)
            with socket.create_connection(bound.getsockname()):
                loop.call_soon(acceptor._task.cancel)
                await asyncio.sleep(0.01)
                await acceptor.close()
    finally:
        loop.set_exception_handler(None)
    assert errors == []
