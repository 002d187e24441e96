"""Processes of a fleet, as the supervisor sees them."""

import asyncio

import pytest

from control.fleet.children import Child, NeverReady

pytestmark = pytest.mark.anyio


async def test_one_that_ends_before_it_can_be_told_is_known_at_once() -> None:
    heard = []
    child = await Child.start("this", "this", None, lambda _, line: heard.append(line))
    with pytest.raises(NeverReady, match="this ended before it was told anything"):
        await child.until_here()
    with pytest.raises(NeverReady, match="this ended with 0 before it was ready"):
        await child.until_ready()
    assert heard == [{"gone": 0}]


async def test_control_stands_by_without_touching_the_state_until_it_is_told() -> None:
    child = await Child.start("control", "control.fleet.control", None, lambda *_: None)
    try:
        await child.until_here()
        assert not child.ready.done()
        assert not child.ended.is_set()
        child.leash.close()  # its supervisor is gone: so is it
        async with asyncio.timeout(20):
            await child.ended.wait()
    finally:
        child.kill()
        await child.ended.wait()
