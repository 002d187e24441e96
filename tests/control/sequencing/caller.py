"""A worker for the kill tests: calls under load until SIGTERM, each step told in a file.

    caller.py FOLDER LABEL FILE

A line is written when a call is *sent* (its intent is durable), when its outcome is *acknowledged*, when an intent
could not be made durable (*denied*), and when an outcome *failed*. Ends with *done* once all it began is over.
"""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from control.sequencing import Identity, RemoteLedger
from ledger import LedgerError
from tests.control.sequencing.house import TENANT, denied, intent, outcome

AT_ONCE = 8


async def work(folder: Path, label: str, file: Path) -> None:
    """See the module's text."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    told = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # As long as a test may take: on a machine with much else to do a sequencer needs more than ten seconds to start.
    ledger = await RemoteLedger.join(folder, Identity.make(label), patience_seconds=120)

    def tell(*words: object) -> None:
        os.write(told, " ".join(map(str, words)).encode() + b"\n")

    async def calls(task: int) -> None:
        chance = random.Random(f"{label}.{task}")
        number = 0
        while not stop.is_set():
            number += 1
            call = f"{label}.{os.getpid()}.{task}.{number}"
            try:
                receipt = await ledger.submit_async(loop, "call.intent", TENANT, intent(ledger.worker, call))
            except LedgerError:
                tell("denied", call)
                await asyncio.sleep(0.02)  # refused at once, it would keep the loop from hearing of the sequencer
                continue
            tell("sent", call, receipt.seq)
            await asyncio.sleep(chance.choice((0, 0.002, 0.02, 0.3)))
            http = chance.randrange(200, 500)
            try:
                last = await ledger.submit_async(loop, "call.outcome", TENANT, outcome(call, receipt.seq, http=http))
            except LedgerError as error:
                tell("failed", call, http, repr(error))
                continue
            tell("acknowledged", call, http, last.seq, last.leaf.hex())
            if number % 7 == 0:
                try:
                    await ledger.submit_async(loop, "call.denied", TENANT, denied(ledger.worker, f"{call}.d"))
                except LedgerError:
                    continue

    await asyncio.gather(*(calls(task) for task in range(AT_ONCE)))
    await ledger.aclose()
    tell("done", ledger.worker)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
