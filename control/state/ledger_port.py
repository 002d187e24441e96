"""The ledger as the state needs it: written in this process, or by the sequencer's and reached over its socket."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from ledger import Head, LedgerError, Receipt, Trust


class LedgerPort(Protocol):
    """What `ledger.Ledger` and `control.sequencing.RemoteLedger` have in common; see the first for what holds."""

    @property
    def directory(self) -> Path:
        """Where the records are read."""
        ...

    @property
    def origin(self) -> str:
        """The log's name."""
        ...

    def submit(self, type: str, tenant: str, content: Mapping[str, object]) -> Future[Receipt]:  # noqa: A002
        """A future that is done once the record is durable, from any thread."""
        ...

    def submit_async(
        self,
        loop: asyncio.AbstractEventLoop,
        type: str,  # noqa: A002
        tenant: str,
        content: Mapping[str, object],
        orphaned: Callable[[Receipt | LedgerError], None] | None = None,
    ) -> asyncio.Future[Receipt]:
        """As `submit`, for the loop it is called on."""
        ...

    def head(self) -> Head:
        """Where the log stands; from any thread, without waiting."""
        ...

    def trust(self) -> Trust:
        """What an auditor pins to check this log."""
        ...

    def trust_text(self) -> str:
        """The trust file's text."""
        ...

    def close(self) -> None:
        """What was submitted is durable or has been refused."""
        ...
