"""A real server for each test that breaks one, and stores on it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.control.stores.subjects import Shared
from tests.worlds.valkey import Valkey, valkey

type Open = Callable[..., "object"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
async def shared(server: Valkey) -> AsyncIterator[Shared]:
    """A store on the server, its counters loaded."""
    async with AsyncExitStack() as stack:
        shared = Shared(server)
        await shared.start()
        stack.push_async_callback(shared.stop)
        yield shared
