"""One authority for all tests of egress: making keys takes time, and none of them changes it."""

import pytest

from tests.worlds.authority import Authority


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
