"""`Ledger`: the sequencer with its own thread; the only writer of its directory.

Submissions from any thread go into one queue. The thread takes all that wait (so one signature, one write and one sync
serve many calls), makes them durable and only then answers: with one `call_soon_threadsafe` per event loop and group.

What an event loop submits is announced to the thread when the callbacks that are ready now have run, once for all of
them, and a few turns later as long as each brings more. Were the thread told of each, it would set out with the first
one alone, and the others would pay for a signature and a sync of their own.

Whatever goes wrong beneath, the answer is the same: this object stops for good and every later submission fails with
`LedgerUnavailable`. It is never retried, for after a failed sync nobody knows what the disk holds. The one exception: a
file that cannot be opened because too many are (`NoDescriptor`) stops nothing; the group is refused and the next one
tries again.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Final, Self, cast

from ledger.batch import Receipt
from ledger.clock import Clock, SystemClock
from ledger.directory import BALLAST
from ledger.errors import LedgerError, LedgerUnavailable, NoDescriptor, RecordRefused
from ledger.files import Files, PosixFiles, no_descriptor
from ledger.lifecycle import OpenIntent
from ledger.locks import LockStore
from ledger.note import Verifier
from ledger.opening import Opened, create_directory, open_directory
from ledger.resume import ResumeStore
from ledger.schema import NO_TENANT, OWN_TYPES
from ledger.sequencer import Limits, Submission, seal_reference
from ledger.tree import Frontier
from ledger.trust import Trust

DEFAULT_RUNG: Final = 0
"""Of the trust file made at genesis: nothing beyond this directory is promised until an operator sets up an anchor."""

_GATHERED: Final = 32
_ROUNDS: Final = 8
"""What a loop submits is announced once so many wait, or after so many turns of the loop that each brought more. A loop
that submits one record and then has nothing to do announces it in its next turn."""

type Result = Receipt | RecordRefused | LedgerUnavailable
type _AsyncFuture = asyncio.Future[Receipt]
type Orphaned = Callable[["Result"], None]
"""Told on the loop what became of a record whose waiter had been cancelled, or that nobody awaits."""
type _Item = tuple[
    str,
    str,
    Mapping[str, object],
    asyncio.AbstractEventLoop | None,
    _AsyncFuture | Future[Receipt] | None,
    Orphaned | None,
]
type _Answer = tuple[_AsyncFuture | None, "Result", Orphaned | None]


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log stands."""

    log: str
    size: int
    """Durable records."""
    root: bytes
    checkpoint_size: int
    """Records covered by the newest checkpoint."""
    lag_records: int
    """Submissions that wait to become durable."""
    lag_seconds: float
    """Age of the group that is being made durable; 0 when there is none."""
    open_intents: int
    reserve: bool
    """True while the disk is below its reserve and intents are refused."""
    halted: str | None
    """Why nothing more is written, or None."""


class Ledger:
    """One open log. See the module's text for what holds."""

    def __init__(self, opened: Opened, clock: Clock, files: Files, limits: Limits) -> None:
        self.directory = opened.directory
        self.origin = opened.description.origin
        self._description = opened.description
        self._sequencer = opened.sequencer
        self._checkpointer = opened.checkpointer
        self._lock: int | None = opened.lock
        self._files = files
        self._limits = limits
        self._queue: deque[_Item | None] = deque()
        self._calls: SimpleQueue[None] = SimpleQueue()
        """For each, the thread looks into the queue once."""
        self._announcing: set[asyncio.AbstractEventLoop] = set()
        """Loops that will call it when they have run what is ready."""
        self._refusal: LedgerUnavailable | None = None
        self._failure: BaseException | None = None
        self._halted = False
        self._running = False
        self._group_started = 0.0
        self._group_items = 0
        self._durable: tuple[int, tuple[bytes, ...]] = (0, ())
        self._sealed_size = 0
        self._last_seal = monotonic()
        self._last_kept = self._last_seal
        self._space_due = 0.0
        try:
            self._seal(keep=True)
        except BaseException:
            os.close(opened.lock)
            raise
        self._running = True
        self._checkpointer.start(self._stop)
        self._thread = Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        keys: Path,
        lock_store: LockStore,
        origin: str,
        clock: Clock | None = None,
        files: Files | None = None,
        limits: Limits | None = None,
        resume: ResumeStore | None = None,
    ) -> "Ledger":
        """A new log, open: keys (kept when their files exist), genesis, first seal and checkpoint are durable.

        Raises `LedgerRefused` when the directory or the lock store already knows a log.
        """
        clock, files, limits = clock or SystemClock(), files or PosixFiles(), limits or Limits()
        return cls(
            create_directory(
                directory,
                keys=keys,
                store=lock_store,
                origin=origin,
                files=files,
                clock=clock,
                limits=limits,
                resume=resume,
            ),
            clock,
            files,
            limits,
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        keys: Path,
        lock_store: LockStore,
        clock: Clock | None = None,
        files: Files | None = None,
        limits: Limits | None = None,
        keep_open: bool = False,
        resume: ResumeStore | None = None,
    ) -> "Ledger":
        """An existing log, recovered and open; see `ledger.opening` for the steps.

        With `resume`, reading begins where it says; without one, or with one that is lost, at the log's beginning.
        With `keep_open`, intents without an outcome stay open, for their makers may be other processes that live.
        Raises `LedgerRefused` when an operator has to look first; nothing has been changed that cannot be redone.
        """
        clock, files, limits = clock or SystemClock(), files or PosixFiles(), limits or Limits()
        return cls(
            open_directory(
                directory,
                keys=keys,
                store=lock_store,
                files=files,
                clock=clock,
                limits=limits,
                keep_open=keep_open,
                resume=resume,
            ),
            clock,
            files,
            limits,
        )

    # --- submitting ---

    def submit(self, type: str, tenant: str, content: Mapping[str, object]) -> Future[Receipt]:  # noqa: A002
        """A future that is done once the record is durable, from any thread.

        It fails with `LedgerUnavailable` (deny, 503) or `RecordRefused` (a defect of the caller). Raises
        `LedgerUnavailable` at once when nothing can be accepted. `content` must not be changed afterwards.
        """
        future: Future[Receipt] = Future()
        self._put((type, tenant, content, None, future, None))
        return future

    def submit_async(
        self,
        loop: asyncio.AbstractEventLoop,
        type: str,  # noqa: A002
        tenant: str,
        content: Mapping[str, object],
        orphaned: Orphaned | None = None,
    ) -> _AsyncFuture:
        """As `submit`, for the loop it is called on.

        A task that is cancelled while it awaits the future cancels the future, not the record: `orphaned` is then
        called on the loop with what became of the record, for what has to follow it.
        """
        future: _AsyncFuture = loop.create_future()
        self._put((type, tenant, content, loop, future, orphaned))
        return future

    def submit_told(
        self,
        loop: asyncio.AbstractEventLoop,
        type: str,  # noqa: A002
        tenant: str,
        content: Mapping[str, object],
        told: Orphaned,
    ) -> None:
        """As `submit_async` without a future: `told` is called on the loop with what became of the record.

        For a front that hands on what others submit. Those of one group are told one after the other, with nothing
        else in between.
        """
        self._put((type, tenant, content, loop, None, told))

    def open_intents(self) -> dict[int, OpenIntent]:
        """Intents that are durable, or about to be, and have no outcome, by seq; from any thread."""
        return self._sequencer.state.calls.open.copy()

    def open_intent(self, seq: int) -> OpenIntent | None:
        """The intent of this seq, if it has no outcome yet; from any thread."""
        return self._sequencer.state.calls.open.get(seq)

    @property
    def key(self) -> Verifier:
        """The key that signs now."""
        return self._sequencer.signer.verifier

    def _put(self, item: _Item) -> None:
        if item[0] in OWN_TYPES:
            raise RecordRefused("type_reserved", f"only the ledger itself writes {item[0]}")
        self._check_open()
        if len(self._queue) >= self._limits.max_pending:
            raise LedgerUnavailable("too many records wait for the disk")
        self._queue.append(item)
        loop = item[3]
        if loop is None:
            self._calls.put(None)
        elif loop not in self._announcing:
            self._announcing.add(loop)
            loop.call_soon(self._announce, loop, len(self._queue), 1)
        try:
            self._check_open()
        except LedgerUnavailable:
            # The thread may have ended between the check above and the put; then nobody else would answer.
            self._fail_waiting()

    def _announce(self, loop: asyncio.AbstractEventLoop, seen: int, rounds: int) -> None:
        waiting = len(self._queue)
        if seen < waiting < _GATHERED and rounds < _ROUNDS:
            loop.call_soon(self._announce, loop, waiting, rounds + 1)
            return
        self._announcing.discard(loop)
        self._calls.put(None)

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise LedgerUnavailable(str(self._refusal))

    def head(self) -> Head:
        """Where the log stands; from any thread."""
        size, nodes = self._durable
        checkpoint = self._checkpointer.last
        started = self._group_started
        return Head(
            self.origin,
            size,
            Frontier(size, nodes).root(),
            checkpoint[0].size if checkpoint is not None else 0,
            len(self._queue) + self._group_items,
            monotonic() - started if started else 0.0,
            len(self._sequencer.state.calls.open),
            self._sequencer.in_reserve,
            str(self._refusal) if self._refusal is not None else None,
        )

    def trust(self) -> Trust:
        """What an auditor pins to check this log."""
        description = self._description
        return Trust(description.origin, description.root, description.genesis, DEFAULT_RUNG)

    def trust_text(self) -> str:
        """The trust file's text; its fingerprint goes to the auditor by another way."""
        return self.trust().text

    def close(self) -> None:
        """What was submitted is durable, the stop is recorded, sealed and checkpointed, the directory is released.

        Raises `LedgerUnavailable` when the log had stopped for good before; the directory is released all the same.
        """
        lock, self._lock = self._lock, None
        if lock is None:
            return
        self._queue.append(None)
        self._calls.put(None)
        self._thread.join()
        self._checkpointer.finish()
        self._sequencer.close_segment()
        os.close(lock)
        if self._failure is not None:
            raise LedgerUnavailable(str(self._refusal)) from self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread ---

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001
            # Whatever it is, the trees in memory may be ahead of the disk: stopping is the only safe answer.
            self._stop(error)

    def _turn(self) -> bool:
        """One group, or one idle period; False after an orderly stop."""
        queue = self._queue
        try:
            self._calls.get(timeout=max(0.0, self._seal_due() - monotonic()))
        except Empty:
            if self._failure is None:
                self._seal_if_it_can()
            return self._failure is None
        items: list[_Item] = []
        closing = False
        while queue and not closing:
            if len(items) >= self._limits.max_batch:
                self._calls.put(None)  # for the rest
                break
            item = queue.popleft()
            if item is None:
                closing = True
            else:
                items.append(item)
        if self._failure is not None:
            self._answer(items, [LedgerUnavailable(str(self._refusal))] * len(items))
            return False
        if items:
            self._append(items)
        if closing:
            self._append_own([("ledger.stop", NO_TENANT, {"reason": "closed"})], seal=True, keep=True)
            self._refusal = LedgerUnavailable("the ledger is closed")
            self._fail_waiting()
            return False
        if monotonic() >= self._seal_due():
            self._seal_if_it_can()
        return True

    def _append(self, items: list[_Item]) -> None:
        self._group_started = now = monotonic()
        self._group_items = len(items)
        try:
            if now >= self._space_due:
                self._space_due = now + self._limits.space_check_seconds
                with _again_later():
                    self._check_space()
            results = self._sequencer.append_batch([(item[0], item[1], item[2]) for item in items])
        except BaseException as error:
            self._answer(items, [LedgerUnavailable(f"the ledger has stopped: {error}")] * len(items))
            raise
        self._made_durable()
        self._answer(items, results)
        if self._sequencer.in_reserve and not self._halted:
            with _again_later():
                self._halt("begin")  # the disk was full and the ballast has been given back

    def _made_durable(self) -> None:
        frontier = self._sequencer.state.frontier
        self._durable = (frontier.size, tuple(frontier.nodes))
        self._group_started = 0.0
        self._group_items = 0

    def _answer(self, items: list[_Item], results: Sequence[Result]) -> None:
        """Every future of a group gets its result; each loop is woken once."""
        loops: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
        for (_, _, _, loop, future, orphaned), result in zip(items, results, strict=True):
            if loop is None:
                _settle(cast("Future[Receipt]", future), result)
            else:
                waiting = loops.get(loop)
                if waiting is None:
                    waiting = loops[loop] = []
                waiting.append((cast("_AsyncFuture | None", future), result, orphaned))
        for loop, waiting in loops.items():
            try:
                loop.call_soon_threadsafe(_deliver, waiting)
            except RuntimeError:
                continue  # the loop has been closed: nobody waits there any more; the records stay

    def _fail_waiting(self) -> None:
        """Whoever waits in the queue is told why nothing more is written."""
        items: list[_Item] = []
        while True:
            try:
                item = self._queue.popleft()
            except IndexError:
                break
            if item is not None:
                items.append(item)
        self._answer(items, [LedgerUnavailable(str(self._refusal))] * len(items))

    def _stop(self, error: BaseException) -> None:
        self._failure = error
        self._refusal = LedgerUnavailable(f"the ledger has stopped: {error}")
        self._fail_waiting()

    # --- seals, checkpoints, space ---

    def _seal_due(self) -> float:
        limits = self._limits
        active = self._durable[0] > self._sealed_size
        return self._last_seal + (limits.seal_active_seconds if active else limits.seal_idle_seconds)

    def _seal(self, *, keep: bool = False) -> None:
        self._append_own([], seal=True, keep=keep)

    def _seal_if_it_can(self) -> None:
        self._last_seal = monotonic()
        with _again_later():
            self._seal()

    def _append_own(self, submissions: list[Submission], *, seal: bool = False, keep: bool = False) -> None:
        """The log's own records are durable; with a seal, the head that it ends is checkpointed."""
        if seal:
            submissions = [*submissions, ("seal", NO_TENANT, seal_reference(self._checkpointer.last))]
        for result in self._sequencer.append_batch(submissions):
            if isinstance(result, LedgerError):
                raise result
        self._made_durable()
        if not seal:
            return
        now = monotonic()
        sequencer = self._sequencer
        keep = keep or sequencer.segment_started or now - self._last_kept >= self._limits.keep_seconds
        frontier = sequencer.state.frontier
        if sequencer.point is not None:
            self._checkpointer.point, sequencer.point = sequencer.point, None
        publish = self._checkpointer.request if self._running else self._checkpointer.publish
        publish(frontier.size, frontier.root(), keep=keep)
        self._sealed_size = frontier.size
        self._last_seal = now
        if keep:
            self._last_kept = now
            sequencer.segment_started = False

    def _check_space(self) -> None:
        """Below the reserve only ends and stops are written; the halt and its end are records."""
        free = self._files.free_bytes(self.directory)
        reserve = self._limits.reserve_bytes
        if not self._halted and free < reserve:
            self._halt("begin", free)
        elif self._halted and free >= reserve + reserve // 4 + self._limits.ballast_bytes:
            self._files.allocate(self.directory / BALLAST, self._limits.ballast_bytes)
            self._halt("end", free)

    def _halt(self, phase: str, free: int | None = None) -> None:
        if phase == "begin":
            self._sequencer.in_reserve = True
        content = {
            "phase": phase,
            "reason": "disk_reserve",
            "free_bytes": self._files.free_bytes(self.directory) if free is None else free,
        }
        self._append_own([("ledger.halt", NO_TENANT, content)])
        self._halted = self._sequencer.in_reserve = phase == "begin"


@contextlib.contextmanager
def _again_later() -> Iterator[None]:
    """What could not be done for want of a file descriptor is left for the next time it is due."""
    try:
        yield
    except NoDescriptor:
        return
    except OSError as error:
        if not no_descriptor(error):
            raise


def _settle(future: Future[Receipt], result: Result) -> None:
    if not future.set_running_or_notify_cancel():
        return  # its caller no longer waits; the record stays
    if isinstance(result, LedgerError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _deliver(waiting: list[_Answer]) -> None:
    """Runs on the callers' loop."""
    for future, result, orphaned in waiting:
        if future is None or future.done():
            if orphaned is not None:
                orphaned(result)  # cancelled meanwhile, or never awaited; the record stays
            continue
        if isinstance(result, LedgerError):
            future.set_exception(result)
        else:
            future.set_result(result)
