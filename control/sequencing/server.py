"""The sequencer's service: one ledger, one Unix socket, as many workers as come.

A worker that connects says who it is and which of its intents it still holds. It is welcomed once everything of an
earlier connection of it has been answered, what it withdrew is closed as not sent, and what it does not know of is
closed as indeterminate: from then on, ledger and worker agree on what is open.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from control import peers
from control.sequencing.connection import Connection
from control.sequencing.graces import RETURN_SECONDS, START_SECONDS, Graces
from control.sequencing.place import Place
from control.sequencing.wire import VERSION, head_values
from ledger import Ledger, LedgerError, LedgerRefused, Record, RecordRefused, read_records, receipts_again

logger = logging.getLogger("exeat.sequencer")

HEAD_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 10.0
"""The ledger answers everything; longer than this, the disk hangs."""
BYE_SECONDS: Final = 5.0
"""A worker has read its answers by then, or hangs; half of the time for which it waits for the next sequencer."""


class Service:
    """See the module's text. For one event loop; `start` it once, `stop` it once."""

    def __init__(
        self,
        ledger: Ledger,
        place: Place,
        *,
        admits: Callable[[int], bool] = peers.admits,
        start_seconds: float = START_SECONDS,
        return_seconds: float = RETURN_SECONDS,
    ) -> None:
        self.ledger = ledger
        self._place = place
        self._admits = admits
        self._graces = Graces(ledger, start_seconds=start_seconds, return_seconds=return_seconds)
        self._connections: dict[str, Connection] = {}
        """The newest of each name."""
        self._unended: set[Connection] = set()
        """Greeted, and not yet over with all answered."""
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Workers are served at `path`. Raises `peers.SocketRefused`."""
        listener = peers.listen(path)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: Connection(self, self._admits), sock=listener
        )
        self._graces.begin()
        self._later(self._tell_heads())

    async def stop(self) -> None:
        """Nothing more is taken, what was is durable and answered, every worker knows. The ledger is the caller's."""
        if self._server is not None:
            self._server.close()
        self._graces.end()
        connections = list(self._connections.values())
        for connection in connections:
            connection.leave()
        await self._until(lambda: not any(connection.unanswered for connection in self._unended), DRAIN_SECONDS)
        for connection in connections:
            connection.bye()
        await self._until(lambda: all(connection.closed for connection in connections), BYE_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- a connection's house ---

    def greet(self, connection: Connection) -> None:
        """It is welcomed once it and the ledger agree."""
        self._unended.add(connection)
        self._later(self._welcome(connection))

    def head(self) -> list[object]:
        """Where the log stands, as it travels."""
        return head_values(self.ledger.head())

    def ended(self, connection: Connection) -> None:
        """The worker has its grace, unless it is here again already."""
        self._unended.discard(connection)
        self._changed.set()
        if self._connections.get(connection.name) is connection:
            del self._connections[connection.name]
            self._graces.went(connection.name, for_good=connection.left_for_good)

    def look_up(self, connection: Connection, items: list[list[Any]]) -> None:
        """Each gets the receipt of that very outcome, or is refused."""
        self._later(self._look_up(connection, items))

    # --- welcoming ---

    async def _welcome(self, connection: Connection) -> None:
        if connection.control and connection.pid != self._place.holder():
            connection.refuse("the control side is who holds the state folder")
            return
        displaced = [
            other
            for other in self._unended
            if other is not connection and (other.name == connection.name or (other.control and connection.control))
        ]
        self._connections[connection.name] = connection
        for other in displaced:
            other.drop()
        await self._until(lambda: not any(other in self._unended for other in displaced), None)
        await self._graces.came(connection.name)
        if connection.closed:
            return  # gone again; what it said may be older than what its next connection did
        try:
            closed = await self._agree(connection)
        except LedgerError as error:
            connection.refuse(f"the ledger takes nothing: {error}")
            return
        ledger = self.ledger
        trust = ledger.trust()
        connection.welcomed = True
        connection.say(
            {
                "welcome": VERSION,
                "log": ledger.origin,
                "key": ledger.key.vkey,
                "root": trust.root.vkey,
                "genesis": trust.genesis.hex(),
                "rung": trust.rung,
                "head": self.head(),
                "closed": closed,
            }
        )

    async def _agree(self, connection: Connection) -> list[int]:
        """What the worker does not hold is closed; the seqs it holds that are not open any more."""
        found = {intent.seq: intent for intent in self._graces.intents_of(connection.name)}
        left = [intent for seq, intent in found.items() if seq not in connection.held]
        unsent = [intent for intent in left if (intent.call, intent.attempt) in connection.withdrawn]
        unknown = [intent for intent in left if (intent.call, intent.attempt) not in connection.withdrawn]
        await self._graces.close(unsent, "aborted", "answer_lost", sent=False)
        await self._graces.close(unknown, "indeterminate", "worker_forgot")
        return sorted(seq for seq in connection.held if seq not in found)

    # --- outcomes whose answer was lost ---

    async def _look_up(self, connection: Connection, items: list[list[Any]]) -> None:
        try:
            found = await asyncio.to_thread(self._recorded, items)
        except (LedgerRefused, OSError) as error:
            logger.error("the ledger cannot be read back: %s", error)
            found = {}
        refused = RecordRefused("lifecycle", "this outcome has no open intent, and is not the one that its intent has")
        for number, _, content, _ in items:
            connection.told(number, found.get(content.get("intent"), refused))

    def _recorded(self, items: list[list[Any]]) -> dict[int, Any]:
        """Receipts of those that are recorded as they are, by the intent's seq."""
        wanted = {content.get("intent"): (tenant, content) for _, tenant, content, _ in items}
        found: dict[int, Record] = {}
        start = min(after for _, _, _, after in items)
        for record in read_records(self.ledger.directory, start=start, types=frozenset({"call.outcome"})):
            intent = record.body["intent"]
            if intent in wanted and isinstance(intent, int):
                tenant, content = wanted[intent]
                same = record.tenant == tenant and all(record.body.get(key) == value for key, value in content.items())
                if same:
                    found[intent] = record
        receipts = receipts_again(self.ledger.directory, list(found.values()), self.ledger.key)
        return {intent: receipts[record.seq] for intent, record in found.items() if record.seq in receipts}

    # --- chores ---

    async def _tell_heads(self) -> None:
        while True:
            await asyncio.sleep(HEAD_SECONDS)
            message = {"head": self.head(), "groups": [], "failed": []}
            for connection in self._connections.values():
                if connection.welcomed:
                    connection.say(message)

    async def _until(self, condition: Callable[[], bool], seconds: float | None) -> None:
        """The condition holds, or the time is over. Looked at whenever a connection is over, and now and then."""
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        while not condition():
            if deadline is not None and asyncio.get_running_loop().time() > deadline:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), 0.02)
            except TimeoutError:
                continue

    def _later(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
