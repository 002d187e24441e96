"""`exeat` with a ledger that writes nothing: only to measure what the ledger costs.

The product has no such switch. This program replaces one port of the gate in its own process and is reachable from the
benchmark alone. Calls still build their records; nothing is encoded, chained, signed or written for them.
"""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import cast

from control.cli import run_command
from ledger import Receipt
from ledger.batch import Batch
from proxy.config import GateConfig
from proxy.gate import Gate, GatePorts


class NoLedger:
    """Answers at once, truthfully about nothing."""

    def __init__(self) -> None:
        self._numbers = count()

    def submit_async(
        self,
        loop: asyncio.AbstractEventLoop,
        type: str,  # noqa: A002 -- the port's name
        tenant: str,
        content: Mapping[str, object],
        orphaned: object = None,
    ) -> "asyncio.Future[Receipt]":
        """The future is done."""
        done: asyncio.Future[Receipt] = loop.create_future()
        call = str(content.get("call", ""))
        done.set_result(Receipt("-", next(self._numbers), bytes(32), "", type, call, cast("Batch", None)))
        return done


_start = Gate.__init__


def _without_ledger(self: Gate, ports: GatePorts, config: GateConfig) -> None:
    _start(self, replace(ports, ledger=NoLedger()), config)


if __name__ == "__main__":
    Gate.__init__ = _without_ledger  # type: ignore[method-assign]
    sys.exit(run_command(sys.argv[1:]))
