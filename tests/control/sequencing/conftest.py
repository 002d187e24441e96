"""A folder with a state, and a sequencer that serves it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.sequencing.house import Sequencer, prepared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepared(tmp_path / "s")


@pytest.fixture
def sequencer(folder: Path) -> Iterator[Sequencer]:
    started = Sequencer(folder).start()
    yield started
    started.end()
