"""Fixtures every test may use."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The product runs on asyncio alone, so the tests do."""
    return "asyncio"
