"""The health listener under a crowd: a bounded number of files, and not a line in the log for each."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from control.health import MAX_CONNECTIONS, Readiness, health_app
from control.listeners import ControlListeners, listen_tcp
from control.threads import ControlThread

ASK = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def door() -> Iterator[tuple[str, int]]:
    ready = Readiness(True, None, "none", draining=False, ledger_halted=None, unsafe=())
    thread = ControlThread()
    thread.start()
    unused = asyncio.new_event_loop()
    listeners = ControlListeners(thread)
    listener = listen_tcp("127.0.0.1", 0)
    listeners.serve_health(health_app(lambda: ready, lambda: "", unused), listener)
    yield listener.getsockname()
    listeners.stop()
    assert thread.stop()
    unused.close()


def _ask(door: tuple[str, int]) -> bytes:
    with socket.create_connection(door, 10) as probe:
        try:
            probe.sendall(ASK)
            return probe.recv(64)
        except ConnectionError:
            return b""


def test_a_crowd_that_says_nothing_is_bounded_and_sent_away(
    door: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), ExitStack() as crowd:
        first = [crowd.enter_context(socket.create_connection(door, 10)) for _ in range(MAX_CONNECTIONS)]
        for _ in range(3):
            assert _ask(door) == b""
        first[0].sendall(ASK)
        assert first[0].recv(64).startswith(b"HTTP/1.1 200 ")
        for silent in first[1:]:
            assert silent.recv(64) == b""  # closed by the timer
        assert _ask(door).startswith(b"HTTP/1.1 200 ")
    assert caplog.messages == []
