"""The sequencer's process: `python -m control.sequencing FOLDER`.

It opens the ledger of a state folder and serves workers at `ledger.sock` in it until SIGTERM. It alone has the ledger's
hot key in memory. SIGINT and SIGHUP are left to whoever started it: a terminal sends them to everybody at once, and
the workers' last outcomes are still to come then.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path

from control import peers
from control.sequencing.place import Place
from control.sequencing.server import Service
from control.startup import StartRefused, hide_memory, raise_file_limit, refuse_foreign_packages
from control.stores.lock_store import SqliteLockStore, open_register
from control.stores.sqlite import StoreRefused, StoreUnavailable
from credentials.keyfile import KeyFileRefused
from ledger import EXIT_COULD_NOT_RUN, FileResumeStore, Ledger, LedgerError, LedgerHeld, PosixFiles

HELD_SECONDS = 5.0

SWITCH_SECONDS = 0.0002
"""As for the gate: the ledger's thread waits for the interpreter with a synced group in its hand."""


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM; the exit code."""
    parser = argparse.ArgumentParser(prog="control.sequencing", description="Writes a state's ledger for its workers.")
    parser.add_argument("folder", type=Path, help="the state folder")
    parser.add_argument("--ready-fd", type=int, help="a descriptor that is told `ready` once workers are served")
    parser.add_argument("--lifeline-fd", type=int, help="a descriptor whose end is taken for SIGTERM")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        refuse_foreign_packages()
        hide_memory()
        raise_file_limit()
        sys.setswitchinterval(SWITCH_SECONDS)
        _run(asked.folder, asked.ready_fd, asked.lifeline_fd)
    except (StartRefused, StoreRefused, StoreUnavailable, LedgerError, OSError) as error:
        cure = getattr(error, "cure", "")
        sys.stderr.write(
            f"the sequencer could not run: {error}\n{cure}\n" if cure else f"the sequencer could not run: {error}\n"
        )
        return EXIT_COULD_NOT_RUN
    except KeyFileRefused as error:
        sys.stderr.write(f"the sequencer could not run: {error.path}: {error.problem}\n{error.fix}\n")
        return EXIT_COULD_NOT_RUN
    except peers.SocketRefused as error:
        sys.stderr.write(f"the sequencer could not run: {error}\n")
        return EXIT_COULD_NOT_RUN
    return 0


def _run(path: Path, ready: int | None, lifeline: int | None) -> None:
    place = Place.of(path)
    peers.check_path(place.socket)
    register = open_register(place.register)
    try:
        ledger = _opened(place, SqliteLockStore(register))
        try:
            asyncio.run(_serve(ledger, place, ready, lifeline))
        finally:
            ledger.close()
    finally:
        register.close()


def _opened(place: Place, store: SqliteLockStore) -> Ledger:
    """A command that writes the ledger for a moment, because nothing runs yet, is waited for."""
    deadline = time.monotonic() + HELD_SECONDS
    resume = FileResumeStore(place.resume, PosixFiles())
    while True:
        try:
            return Ledger.open(place.ledger, keys=place.keys, lock_store=store, keep_open=True, resume=resume)
        except LedgerHeld:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


async def _serve(ledger: Ledger, place: Place, ready: int | None, lifeline: int | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if lifeline is not None:
        os.set_blocking(lifeline, False)
        loop.add_reader(lifeline, _ended, loop, lifeline, stop)
    service = Service(ledger, place)
    await service.start(place.socket)
    try:
        if ready is not None:
            os.write(ready, b"ready\n")
            os.close(ready)
        await stop.wait()
    finally:
        await asyncio.to_thread(place.socket.unlink, missing_ok=True)
        await service.stop()


def _ended(loop: asyncio.AbstractEventLoop, lifeline: int, stop: asyncio.Event) -> None:
    try:
        if os.read(lifeline, 64):
            return
    except BlockingIOError:
        return
    loop.remove_reader(lifeline)
    stop.set()
