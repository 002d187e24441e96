"""`RemoteLedger`: the ledger as a process has it that does not write it. The same calls, the same promises.

One connection to the sequencer, on one event loop: a gate gives its own, so that a submission costs no change of
thread; without one the client runs a loop on a thread of its own. What is submitted in one turn of the loop travels in
one frame.

When the connection ends it is made again, four times a second at the least. `submissions` says what becomes of what was
not answered. What is submitted meanwhile waits for `patience_seconds` from the loss on; after that, until the
sequencer is back, everything fails at once with `LedgerUnavailable`.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from control import peers
from control.sequencing.line import Line
from control.sequencing.submissions import Orphaned, Result, Submission, Submissions, tell, unknown
from control.sequencing.wire import (
    CONTROL,
    MAX_UNANSWERED,
    SOCKET_NAME,
    VERSION,
    WORKER,
    FrameBad,
    Identity,
    batch_of,
    failure_of,
    frame,
    framed,
    head_of,
)
from ledger import Head, LedgerRefused, LedgerUnavailable, Receipt, Trust
from ledger.note import NoteInvalid, Verifier

if TYPE_CHECKING:
    from control.state.folder import Folder  # which brings all of the state; the sequencer starts without it

logger = logging.getLogger("exeat.sequencer")

PATIENCE_SECONDS: Final = 10.0
WELCOME_SECONDS: Final = 5.0
FIRST_PAUSE_SECONDS: Final = 0.01
LONGEST_PAUSE_SECONDS: Final = 0.25
_AWAY: Final = "the sequencer cannot be reached"


class RemoteLedger:
    """See the module's text."""

    def __init__(
        self,
        directory: Path,
        identity: Identity,
        *,
        role: str = WORKER,
        loop: asyncio.AbstractEventLoop | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Of the state folder `directory`; use `open` or `join`."""
        self.directory = directory.absolute() / "ledger"
        self.worker = identity.name
        """What the records of this process have to say in `env.worker`."""
        self._socket = directory.absolute() / SOCKET_NAME
        self._identity = identity
        self._role = role
        self._patience = patience_seconds
        self._submissions = Submissions()
        self._line: Line | None = None
        self._welcome: dict[str, Any] = {}
        self._head: Head | None = None
        self._away_since: float | None = monotonic()
        self._gave_up = False
        self._flushing = False
        self._closed = False
        """Nothing more is accepted."""
        self._over = False
        self._refused: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()
        self._thread: threading.Thread | None = None
        if loop is None:
            loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="ledger-client", daemon=True)
            self._thread.start()
        self._loop = loop
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def open(
        cls, directory: Path, identity: Identity, *, role: str = WORKER, patience_seconds: float = PATIENCE_SECONDS
    ) -> "RemoteLedger":
        """Connected, with a thread of its own. Raises `LedgerUnavailable` or `LedgerRefused`."""
        remote = cls(directory, identity, role=role, patience_seconds=patience_seconds)
        try:
            asyncio.run_coroutine_threadsafe(remote._begin(), remote._loop).result()
        except BaseException:
            remote.close()
            raise
        return remote

    @classmethod
    async def join(
        cls, directory: Path, identity: Identity, *, role: str = WORKER, patience_seconds: float = PATIENCE_SECONDS
    ) -> "RemoteLedger":
        """Connected, on the running loop: `submit_async` from this loop changes no thread. Raises as `open`."""
        remote = cls(directory, identity, role=role, loop=asyncio.get_running_loop(), patience_seconds=patience_seconds)
        try:
            await remote._begin()
        except BaseException:
            await remote.aclose()
            raise
        return remote

    async def _begin(self) -> None:
        """The first welcome has come."""
        self._timer = self._loop.call_later(self._patience, self._give_up)
        welcomed = self._loop.create_future()
        self._task = self._loop.create_task(self._keep_connected(welcomed))
        await welcomed

    # --- submitting ---

    def submit(self, type: str, tenant: str, content: Mapping[str, object]) -> Future[Receipt]:  # noqa: A002
        """As `Ledger.submit`; from any thread but the loop's own."""
        future: Future[Receipt] = Future()
        one = self._admit(type, tenant, content, future, None, None)
        self._loop.call_soon_threadsafe(self._take, one)
        return future

    def submit_async(
        self,
        loop: asyncio.AbstractEventLoop,
        type: str,  # noqa: A002
        tenant: str,
        content: Mapping[str, object],
        orphaned: Orphaned | None = None,
    ) -> asyncio.Future[Receipt]:
        """As `Ledger.submit_async`."""
        future: asyncio.Future[Receipt] = loop.create_future()
        one = self._admit(type, tenant, content, future, loop, orphaned)
        if loop is self._loop:
            self._take(one)
        else:
            self._loop.call_soon_threadsafe(self._take, one)
        return future

    def _admit(
        self,
        type_: str,
        tenant: str,
        content: Mapping[str, object],
        future: asyncio.Future[Receipt] | Future[Receipt],
        loop: asyncio.AbstractEventLoop | None,
        orphaned: Orphaned | None,
    ) -> Submission:
        """Raises `RecordRefused`, or `LedgerUnavailable` when nothing can be accepted; an outcome is kept even then."""
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        one = Submission(type_, tenant, content, future, loop, orphaned)
        if self._gave_up:
            if one.type == "call.outcome" and len(self._submissions) < MAX_UNANSWERED:
                one.future = one.orphaned = None
                self._loop.call_soon_threadsafe(self._take, one)
            raise LedgerUnavailable(_AWAY)
        if len(self._submissions) >= MAX_UNANSWERED:
            raise LedgerUnavailable("too many records wait for the sequencer")
        return one

    def _take(self, one: Submission) -> None:
        if self._gave_up and one.future is not None:
            tell([(one, LedgerUnavailable(_AWAY))], self._loop)  # since it was admitted, on another thread
            if one.type != "call.outcome":
                return
        self._submissions.waiting.append(one)
        if not self._flushing and self._line is not None:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        line = self._line
        size = 0 if self._head is None else self._head.size
        while line is not None and not line.full:
            body, dropped = self._submissions.next_frame(size)
            tell([(one, LedgerUnavailable("its caller left")) for one in dropped], self._loop)
            if body is None:
                return
            line.write(framed(body))

    # --- what is known without asking ---

    @property
    def origin(self) -> str:
        """The log's name."""
        return str(self._welcome["log"])

    def head(self) -> Head:
        """Where the log stands, as the sequencer told with its last answers, a second ago at the most."""
        known, away = self._head, self._away_since
        if known is None:
            raise LedgerUnavailable(_AWAY)
        waiting = len(self._submissions)
        lag = known.lag_seconds if away is None else monotonic() - away
        halted = known.halted
        if halted is None and self._gave_up:
            halted = _AWAY
        return Head(
            known.log,
            known.size,
            known.root,
            known.checkpoint_size,
            max(waiting, known.lag_records),
            lag,
            known.open_intents,
            known.reserve,
            halted,
        )

    def trust(self) -> Trust:
        """What an auditor pins to check this log."""
        told = self._welcome
        return Trust(told["log"], Verifier.parse(told["root"]), bytes.fromhex(told["genesis"]), told["rung"])

    def trust_text(self) -> str:
        """The trust file's text."""
        return self.trust().text

    # --- the connection ---

    async def _keep_connected(self, welcomed: asyncio.Future[None]) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._over:
            try:
                line = await self._connect()
                pause = FIRST_PAUSE_SECONDS
                if not welcomed.done():
                    welcomed.set_result(None)
                await line.over
            except (OSError, FrameBad, TimeoutError) as error:
                if self._refused is not None:
                    logger.error("the sequencer refuses this process: %s", self._refused)
                if not welcomed.done():
                    if self._refused is not None:
                        welcomed.set_exception(LedgerRefused(f"the sequencer refuses: {self._refused}"))
                        return
                    if self._gave_up:
                        welcomed.set_exception(LedgerUnavailable(f"{_AWAY} at {self._socket}: {error}"))
                        return
                self._refused = None
            self._lost()
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    async def _connect(self) -> Line:
        """A line on which this process has been welcomed."""
        _, line = await self._loop.create_unix_connection(lambda: Line(self._heard), str(self._socket))
        try:
            if not peers.admits(peers.peer_uid(line.transport.get_extra_info("socket"))):
                raise FrameBad("the socket belongs to another user")
            submissions = self._submissions
            line.write(
                frame(
                    {
                        "hello": VERSION,
                        "role": self._role,
                        "name": self._identity.name,
                        "proof": self._identity.proof,
                        "open": list(submissions.held),
                        "withdrawn": [list(call) for call in submissions.withdrawn],
                    }
                )
            )
            async with asyncio.timeout(WELCOME_SECONDS):
                told = await line.welcome
            try:
                self._key = Verifier.parse(told["key"])
                self._head = head_of(told["log"], told["head"])
                submissions.welcomed(told["closed"])
            except (KeyError, ValueError, TypeError, NoteInvalid) as error:
                raise FrameBad("a welcome of another shape") from error
        except BaseException:
            line.welcome.cancel()
            line.transport.abort()
            raise
        self._welcome, self._line = told, line
        self._away_since, self._gave_up = None, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        line.drained = self._flush
        self._flush()
        return line

    def _lost(self) -> None:
        """Callers whose records may or may not be there are told so; the rest waits for the next connection."""
        line, self._line = self._line, None
        if line is None:
            return
        self._away_since = monotonic()
        self._timer = self._loop.call_later(self._patience, self._give_up)
        told = self._submissions.lost(line.taken)
        if not self._closed:
            logger.warning("the sequencer went away; %d records without an answer", len(told))
        tell([(one, unknown()) for one in told], self._loop)

    def _give_up(self) -> None:
        self._gave_up = True
        told = self._submissions.given_up()
        tell([(one, LedgerUnavailable(_AWAY)) for one in told], self._loop)

    # --- what the sequencer says ---

    def _heard(self, line: Line, message: dict[str, Any]) -> None:
        if "groups" in message:
            self._answers(message)
        elif "bye" in message:
            line.taken = int(message["bye"])
            line.transport.abort()
        elif "refused" in message:
            self._refused = str(message["refused"])
            line.transport.abort()
        else:
            raise FrameBad("a frame of an unknown kind")

    def _answers(self, message: dict[str, Any]) -> None:
        answered = self._submissions.answered
        told: list[tuple[Submission, Result]] = []
        log = self.origin
        for values, numbers in message["groups"]:
            batch, ts = batch_of(log, self._key, values)
            for number, seq in numbers:
                sent = self._submissions.sent.get(number)
                if sent is None:
                    raise FrameBad("an answer to nothing")
                receipt = Receipt(log, seq, batch.leaves[seq - batch.first], ts, sent.type, sent.call, batch)
                answered(number, receipt)
                told.append((sent, receipt))
        for number, kind, code, detail in message["failed"]:
            one = answered(number, failure := failure_of(kind, code, detail))
            if one is None:
                raise FrameBad("an answer to nothing")
            told.append((one, failure))
        self._head = head_of(log, message["head"])
        tell(told, self._loop)
        if self._closed and not len(self._submissions):
            self._settled.set()

    # --- the end ---

    async def aclose(self) -> None:
        """What was submitted has been answered, if it could be in time; the connection is over. Idempotent."""
        if not self._closed:
            self._closed = True
            if len(self._submissions):
                try:
                    await asyncio.wait_for(self._settled.wait(), self._patience)
                except TimeoutError:
                    logger.error("%d records were not answered before the end", len(self._submissions))
            self._over = True
            if self._line is not None:
                self._line.write(frame({"bye": 1}))
                self._line.transport.close()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._lost()
        self._give_up()
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """As `aclose`, from a thread that is not the loop's. Idempotent."""
        thread = self._thread
        if thread is None:
            asyncio.run_coroutine_threadsafe(self.aclose(), self._loop).result()
        elif thread.is_alive():
            asyncio.run_coroutine_threadsafe(self.aclose(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()


def as_control(folder: "Folder") -> RemoteLedger:
    """For `State.open(..., join=as_control)`: the control process's ledger of the folder that it holds."""
    return RemoteLedger.open(folder.path, Identity.make("control"), role=CONTROL)
