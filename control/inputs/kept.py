"""`KeptInputs`: what calls were decided on, taken over from the gate, sealed and stored by a thread of its own.

The ledger has the commitment of every call whatever happens here, so a replay knows what is missing. Nothing opens the
files before they are needed: a start does not wait for them either.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, RLock, Thread
from typing import Final

from control.inputs.day_keys import KEYS, DayKeys
from control.inputs.rows import ROWS, Opened, Row, Selection, day_of, micros
from control.stores.sqlite import Database, StoreRefused, StoreUnavailable
from credentials.envelope import KeyEncryptionKey
from proxy.deciding import Decided

logger = logging.getLogger("exeat.inputs")

MAX_WAITING: Final = 20_000
"""Calls: a second of the fastest traffic that was measured, several times over."""
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
_GATHER_SECONDS: Final = 0.2
"""Calls that end within it are stored in one transaction."""
_BATCH: Final = 1_000
_FLUSH_SECONDS: Final = 10.0
_EXPIRE_SECONDS: Final = 3600.0
_COLUMNS: Final = "id, call, at, tenant, account, policy, code, rule, sealed"


@dataclass(frozen=True, slots=True)
class Losses:
    """What was not kept since the process started."""

    queue: int
    """Calls that came while too much was waiting."""
    store: int
    """Calls that could not be stored."""
    fault: str | None
    """Why, while it goes on."""


class KeptInputs:
    """Keeps decision inputs. `keep` is for the proxy's thread; everything else for any other."""

    def __init__(self, rows: Path, keys: Path, kek: KeyEncryptionKey, keep_seconds: Callable[[str], int]) -> None:
        self._paths = rows, keys
        self._kek = kek
        self._keep_seconds = keep_seconds
        """How long a tenant's are kept; 0: not at all."""
        self._queue: SimpleQueue[Decided | Event] = SimpleQueue()
        self._lock = RLock()
        self._rows: Database | None = None
        self._keys: DayKeys | None = None
        self._thread: Thread | None = None
        self._closing = False
        # Each of these is written by one thread alone.
        self._came = self._came_bytes = self._too_many = 0
        self._went = self._went_bytes = self._not_stored = 0
        self._fault: str | None = None

    # the gate's side

    def keep(self, decided: Decided) -> None:
        """Taken over, or counted as lost. At once, and never raises."""
        size = len(decided.inputs)
        if self._keep_seconds(decided.tenant) == 0:
            return
        if self.waiting >= MAX_WAITING or self._came_bytes - self._went_bytes + size > MAX_WAITING_BYTES:
            self._too_many += 1
            return
        self._came += 1
        self._came_bytes += size
        self._queue.put(decided)

    @property
    def waiting(self) -> int:
        """Calls that are taken over and not stored yet."""
        return self._came - self._went

    @property
    def stored(self) -> int:
        """Calls that were stored since the start."""
        return self._went - self._not_stored

    @property
    def losses(self) -> Losses:
        """What was not kept since the start, and why."""
        ended = self._thread is not None and not self._thread.is_alive() and not self._closing
        fault = "the thread that stores them has ended; restart exeat up" if ended else self._fault
        return Losses(self._too_many, self._not_stored, fault)

    def gauges(self) -> dict[str, float]:
        """For the metrics."""
        lost = self.losses
        return {
            "decision_inputs_stored": self.stored,
            "decision_inputs_waiting": self.waiting,
            "decision_inputs_lost": lost.queue + lost.store,
        }

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know."""
        lost = self.losses
        found = []
        if lost.fault is not None:
            found.append(f"decision inputs are not kept now: {lost.fault}")
        if missing := lost.queue + lost.store:
            found.append(f"the decision inputs of {missing} calls were lost since the start; a replay cannot tell them")
        return tuple(found)

    # the thread

    def start(self) -> None:
        """What comes is stored, and what is too old removed, from now on."""
        self._thread = Thread(target=self._run, name="decision-inputs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        expire_at = time.monotonic()
        while not self._closing or not self._queue.empty():
            if time.monotonic() >= expire_at:
                expire_at = time.monotonic() + _EXPIRE_SECONDS
                try:
                    self.expire(datetime.now(UTC))
                except StoreUnavailable as error:
                    self._failed(error)
            try:
                first = self._queue.get(timeout=max(0.0, expire_at - time.monotonic()))
            except Empty:
                continue
            if not isinstance(first, Event) and not self._closing:
                time.sleep(_GATHER_SECONDS)
            self._store(first)

    def _store(self, first: Decided | Event) -> None:
        batch: list[Decided] = []
        asked: list[Event] = []
        one: Decided | Event = first
        while True:
            if isinstance(one, Event):
                asked.append(one)
            else:
                batch.append(one)
            if len(batch) == _BATCH:
                break
            try:
                one = self._queue.get_nowait()
            except Empty:
                break
        if batch:
            try:
                self._insert(batch)
                self._fault = None
            except StoreUnavailable as error:
                self._not_stored += len(batch)
                self._failed(error)
            self._went_bytes += sum(len(decided.inputs) for decided in batch)
            self._went += len(batch)
        for waiter in asked:
            waiter.set()

    def _insert(self, batch: list[Decided]) -> None:
        with self._lock:
            rows, keys = self._files()
            days = [day_of(micros(decided.at)) for decided in batch]
            keys.make({(decided.tenant, day) for decided, day in zip(batch, days, strict=True)})
            sealed = []
            for decided, day in zip(batch, days, strict=True):
                cipher = keys.find(decided.tenant, day)
                if cipher is None:
                    raise StoreUnavailable("a key that was just made is not there")
                sealed.append(Row.sealing(decided, cipher))
            with rows.transaction() as connection:
                connection.executemany(
                    "INSERT OR IGNORE INTO kept (call, at, tenant, account, day, policy, code, rule, sealed) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [(r.call, r.at, r.tenant, r.account, r.day, r.policy, r.code, r.rule, r.sealed) for r in sealed],
                )

    def _failed(self, error: StoreUnavailable) -> None:
        if self._fault is None:
            logger.error("decision inputs cannot be kept: %s", error)
        self._fault = str(error)

    def flush(self) -> None:
        """What came before this is stored, or counted as lost. Raises `StoreUnavailable` when that takes long."""
        if self._thread is None or not self._thread.is_alive():
            return
        done = Event()
        self._queue.put(done)
        if not done.wait(_FLUSH_SECONDS):
            raise StoreUnavailable("the inputs that are waiting to be stored were not stored in time")

    # operators' side; every method raises `StoreUnavailable`

    def page(
        self, chosen: Selection, after: tuple[int, int], *, at_most: int, bytes_at_most: int
    ) -> tuple[tuple[Opened, ...], tuple[int, int] | None]:
        """Kept calls in the order of time, behind a place (at first `(-1, 0)`), and where to go on; None: no more."""
        self.flush()
        condition, values = chosen.where()
        # The condition is of this module's own making; its values are bound.
        statement = f"SELECT {_COLUMNS} FROM kept WHERE (at, id) > (?, ?) AND {condition} ORDER BY at, id LIMIT ?"  # noqa: S608
        with self._lock:
            rows, _ = self._files()
            found = rows.query(statement, (*after, *values, at_most))
            opened: list[Opened] = []
            for row in found:
                opened.append(self._open(row))
                bytes_at_most -= len(opened[-1].inputs or b"")
                if bytes_at_most <= 0:
                    break
        more = len(opened) < len(found) or len(found) == at_most
        return tuple(opened), (opened[-1].row.at, opened[-1].number) if more else None

    def find(self, call: str) -> Opened | None:
        """The kept call; None where there is no row of it."""
        found, _ = self.page(Selection(call=call), (-1, 0), at_most=1, bytes_at_most=1)
        return found[0] if found else None

    def count(self, chosen: Selection) -> int:
        """How many `erase` would erase now."""
        self.flush()
        condition, values = chosen.where()
        with self._lock:
            rows, _ = self._files()
            statement = f"SELECT count(*) FROM kept WHERE sealed IS NOT NULL AND {condition}"  # noqa: S608 - as above
            return int(rows.query(statement, values)[0][0])

    def erase(self, chosen: Selection) -> int:
        """These inputs are gone, from the file and its log; that they were kept stays until their day goes.

        Where nothing but a time is given, the keys of the days that lie wholly before it are destroyed too.
        """
        self.flush()
        condition, values = chosen.where()
        with self._lock:
            rows, keys = self._files()
            if chosen.before is not None and (chosen.call, chosen.account, chosen.since) == (None, None, None):
                last = day_of(micros(chosen.before))
                keys.destroy([(t, d) for t, d in keys.days() if d < last and chosen.tenant in (None, t)])
            with rows.transaction() as connection:
                statement = f"UPDATE kept SET sealed = NULL WHERE sealed IS NOT NULL AND {condition}"  # noqa: S608 - as above
                erased = connection.execute(statement, values).rowcount
            rows.fold()
            return erased

    def expire(self, now: datetime) -> int:
        """Days that are older than their tenant's policy says are gone, with their keys; how many."""
        with self._lock:
            rows, keys = self._files()
            days = {*keys.days(), *rows.query("SELECT DISTINCT tenant, day FROM kept")}
            over = sorted((tenant, day) for tenant, day in days if self._is_over(tenant, day, now))
            if not over:
                return 0
            keys.destroy(over)
        for tenant, day in over:
            self._remove(rows, tenant, day)
        rows.fold()
        return len(over)

    def _is_over(self, tenant: str, day: str, now: datetime) -> bool:
        keep = self._keep_seconds(tenant)
        ends = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)
        return keep == 0 or ends + timedelta(seconds=keep) <= now

    @staticmethod
    def _remove(rows: Database, tenant: str, day: str) -> None:
        statement = "DELETE FROM kept WHERE id IN (SELECT id FROM kept WHERE tenant = ? AND day = ? LIMIT 5000)"
        while True:  # in pieces, so that what comes meanwhile is stored
            with rows.transaction() as connection:
                if connection.execute(statement, (tenant, day)).rowcount == 0:
                    return

    def close(self) -> None:
        """What is waiting is stored, or lost; the files are released. Idempotent."""
        self._closing = True
        if self._thread is not None:
            self._queue.put(Event())
            self._thread.join(_FLUSH_SECONDS)
            self._thread = None
        with self._lock:
            if self._rows is not None:
                self._rows.close()
            if self._keys is not None:
                self._keys.close()

    def _files(self) -> tuple[Database, DayKeys]:
        if self._rows is None or self._keys is None:
            rows, keys = self._paths
            try:
                if self._rows is None:
                    self._rows = Database.open(rows, ROWS)
                self._keys = DayKeys(Database.open(keys, KEYS), self._kek)
            except StoreRefused as refused:
                raise StoreUnavailable(str(refused)) from refused
        return self._rows, self._keys

    def _open(self, columns: tuple[object, ...]) -> Opened:
        number, call, at, tenant, account, policy, code, rule, sealed = columns
        row = Row(call, at, tenant, account, policy, code, rule, sealed)  # type: ignore[arg-type]  # as they were stored
        _, keys = self._files()
        cipher = keys.find(row.tenant, row.day)
        return Opened(int(str(number)), row, None if cipher is None else row.open(cipher))
