"""Counters, leases and budgets of several processes, in one server: the shared `Reservations`.

The same promises as `control.stores.limits`, kept by one script before a call and one after it. Beyond them:

1. A reservation is alive while its process is: kept every third of its time to live, ended by the server after it. Then
   its slots are free, and its amounts count as spent at their maximum, marked for correction.
2. Whoever asks gets an answer or `ReservationsUnavailable` within the time-outs, however the server fails. What may
   have been taken by a lost answer is given back; a reservation is named by us, before it is asked for.
3. Counters that are gone, or those of a server that was restarted, are not used: refused until they are loaded again.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any, Final, Literal

import hiredis

from control.stores.counted import Budget, BudgetUse, Holder, Key
from control.stores.redis import books
from control.stores.redis.books import Correction
from control.stores.redis.encoding import (
    KEPT_AT_ONCE,
    arguments_of,
    as_charged,
    kept_of,
    name_of,
    places_of,
    refusal,
    root_of,
    seated,
    slots_of,
)
from control.stores.redis.leaving import Leaving
from control.stores.redis.link import BreakerState, Down, Link
from control.stores.redis.outbox import Outbox
from control.stores.redis.place import Place
from control.stores.redis.scripts import FINISH, KEEP, PAUSE, RESERVE, Script, evaluate, forgotten
from control.stores.redis.wire import Crowded, Lost, Wire
from control.stores.verdicts import check, told
from rules.claims import (
    Claim,
    PauseClaim,
    RateClaim,
    Refused,
    ReservationsUnavailable,
    Reserved,
    SpendClaim,
    Ticket,
    Waiting,
)

logger = logging.getLogger("exeat.limits")

LEASE_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 0.2
"""Also for the server's greeting: down is known within 250 ms."""
ANSWER_SECONDS: Final = 0.4
"""Hung is known within 600 ms, and before the pipeline's own deadline for the step."""
FIRST_ASKS_SECONDS: Final = 0.015
"""How often who is next asks for a slot; who has others before it asks more rarely."""
LAST_ASKS_SECONDS: Final = 0.25
PAUSE_MOST_SECONDS: Final = 86_400.0

type Degraded = Callable[[Literal["begin", "end"], str], None]


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """What an operator wants to know of the shared counters."""

    state: BreakerState
    last_error: str
    unready: tuple[tuple[str, str], ...]
    """(tenant, why) whose counters have to be loaded again."""
    held: int
    undelivered: int
    dropped: int

    @property
    def degraded(self) -> str:
        """Why calls are refused now; empty when they are not."""
        if self.state != "closed":
            return self.last_error or "not connected yet"
        return "; ".join(f"{tenant}: {why}" for tenant, why in self.unready)


class RedisReservations:
    """Implements `rules.claims.Reservations`. Belongs to the loop it was started on; start it before the first call."""

    def __init__(
        self,
        place: Place,
        worker: str,
        *,
        on_degraded: Degraded | None = None,
        lease_seconds: float = LEASE_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._worker = worker
        self._on_degraded = on_degraded
        self._degraded = ""
        self._lease_us = int(lease_seconds * 1_000_000)
        self._link = Link(place, self._changed, connect_seconds=connect_seconds, answer_seconds=answer_seconds)
        self._outbox = Outbox(self._link)
        self._leaving = Leaving(self._outbox)
        self._keeper: asyncio.Task[None] | None = None
        self._beat = asyncio.Event()
        self._held: dict[str, tuple[bytes, tuple[str, ...]]] = {}
        """Reservation: (its tenant's root, key and member of each slot)."""
        self._unready: dict[str, str] = {}

    async def start(self) -> None:
        """Connected, or trying on in the background when the server cannot be reached.

        Raises `RedisRefused` when it can be reached and must not be used; nothing runs then.
        """
        self._link.start()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        try:
            await self._link.wire()
        except Down:
            if (refused := self._link.refused) is not None:
                await self.stop()
                raise refused from None

    async def stop(self) -> None:
        """The connection is closed. Await `settled` before; what is undelivered then is ended by its expiry."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        await self._link.stop()

    async def settled(self, timeout_seconds: float = 5.0) -> bool:
        """True when the server has everything that was ended here; False when it has not in time."""
        self._leaving.flush()
        return await self._outbox.settled(timeout_seconds)

    def health(self) -> StoreHealth:
        """As it is now; asks nobody."""
        return StoreHealth(
            self._link.state,
            self._link.last_error,
            tuple(sorted(self._unready.items())),
            len(self._held),
            self._outbox.undelivered,
            self._outbox.dropped,
        )

    @property
    def held(self) -> int:
        """Reservations of this process that are neither released nor settled."""
        return len(self._held)

    async def reserve(self, call: str, claims: tuple[Claim, ...]) -> Reserved | Refused:
        """All claims are taken, or none, in one round trip.

        The windows and amounts of the `Reserved` are those really charged. Raises `ReservationsUnavailable` when it
        cannot be told; nothing stays taken then.
        """
        answer = await self._reserve(call, claims, None)
        if isinstance(answer, Waiting):
            raise ReservationsUnavailable("a call that does not wait was told to")
        return answer

    async def reserve_or_wait(
        self, call: str, claims: tuple[Claim, ...], ticket: Ticket
    ) -> Reserved | Refused | Waiting:
        """As `reserve`; but where nothing is missing than slots that may be waited for, the call waits."""
        return await self._reserve(call, claims, ticket)

    async def turn(self, ticket: Ticket, seconds: float) -> None:
        """So long is over as those ahead of it may take. Nobody tells who waits; asking again is cheap."""
        await asyncio.sleep(min(seconds, FIRST_ASKS_SECONDS * (1 + ticket.ahead), LAST_ASKS_SECONDS))

    def leave(self, ticket: Ticket) -> None:
        """The call waits no longer. One of a process that is lost leaves by itself after three seconds."""
        claim, ticket.at = ticket.at, None
        if claim is not None:
            self._leaving.post(root_of(claim.key[0]), [name_of(claim.key), str(ticket.seats[claim.key][1])])

    async def _reserve(
        self, call: str, claims: tuple[Claim, ...], ticket: Ticket | None
    ) -> Reserved | Refused | Waiting:
        name = f"{call}#{secrets.token_hex(6)}"
        try:
            check(claims)
            if not claims:
                return Reserved(name, ())
            root = root_of(claims[0].key[0])
        except ValueError as error:
            raise ReservationsUnavailable(str(error)) from error
        try:
            reply = await self._taken(root, call, name, claims, ticket)
        except (Down, Crowded) as error:
            raise ReservationsUnavailable(f"the shared limits cannot be asked: {error}") from error
        return self._verdict(name, root, claims, reply, ticket)

    def release(self, reserved: Reserved) -> None:
        """Leases and amounts are given back: the call was never sent. Rate tokens stay spent."""
        self._end(reserved, "release", ())

    def settle(self, reserved: Reserved, spent: Mapping[str, int], *, refused: bool = False) -> None:
        """Leases are given back and each budget holds what its meter really counted; else its maximum."""
        amounts: dict[str, int] = {}
        for claim in reserved.claims:
            if isinstance(claim, SpendClaim) and (amount := told(spent, claim.meter, -1)) >= 0:
                amounts[claim.meter] = amount
        self._end(reserved, "refuse" if refused else "settle", tuple(part for pair in amounts.items() for part in pair))

    def pause(self, key: Key, seconds: float) -> None:
        """Claims of this key are refused for so long, by every process; the longest that was asked for counts."""
        length_us = int(min(max(0.0, seconds), PAUSE_MOST_SECONDS) * 1_000_000)
        self._outbox.post(PAUSE, root_of(key[0]), name_of(key), length_us)

    def adopt(self, reserved: Reserved) -> None:
        """A call that was granted elsewhere holds its slots here from now on, and its end corrects what was loaded."""
        claims = reserved.claims
        self._held[reserved.id] = (root_of(claims[0].key[0]), slots_of(reserved.id, claims))
        self._beat.set()

    async def budgets(self, tenant: str) -> tuple[BudgetUse, ...]:
        """The newest window of every budget of a tenant, by key. Raises `ReservationsUnavailable`."""
        return await books.budgets(self, tenant)

    async def holders(self, tenant: str) -> tuple[Holder, ...]:
        """The calls of a tenant that hold a concurrency slot, the oldest first. Raises `ReservationsUnavailable`."""
        return await books.holders(self, tenant)

    async def waiting(self, tenant: str, slots: Sequence[str]) -> dict[str, int]:
        """How many calls wait for each of these slots, by their names. Raises `ReservationsUnavailable`."""
        return await books.waiting(self, tenant, slots)

    async def corrections(self, tenant: str) -> tuple[Correction, ...]:
        """What was counted at its maximum because nobody said what it came to. Raises `ReservationsUnavailable`."""
        return await books.corrections(self, tenant)

    async def correct(self, tenant: str, correction: Correction, spent: Mapping[str, int]) -> bool:
        """The ledger knows what it came to. False when it was corrected before. Raises `ReservationsUnavailable`."""
        return await books.correct(self, tenant, correction, spent)

    async def unready(self, tenants: Iterable[str]) -> tuple[str, ...]:
        """Those whose counters have to be loaded before a call of them can be let out. Raises as `budgets`."""
        return await books.unready(self, tenants)

    async def rebuild(
        self,
        tenants: Iterable[str],
        budgets: Iterable[tuple[str, Budget]],
        tats_wall_us: Iterable[tuple[Key, int]],
        generation: str,
        in_flight: Iterable[books.InFlight] = (),
    ) -> tuple[str, ...]:
        """Loads what was counted from the ledger for those of `tenants` that are unready; returns them.

        See `books.rebuild` for what the caller must have waited for. Raises `ReservationsUnavailable`; nothing is in
        force then for the tenants that were not reached, and it can be called again under another generation.
        """
        loaded = await books.rebuild(self, tenants, budgets, tats_wall_us, generation, in_flight)
        for tenant in loaded:
            self._unready.pop(tenant, None)
        self._beat.set()
        self._tell()
        return loaded

    async def ask(self, script: Script, root: bytes, *arguments: bytes | str | int) -> Any:
        """What a script answers. Raises `ReservationsUnavailable`."""
        try:
            wire = await self._link.wire()
            return checked(await evaluate(wire, script, root, *arguments))
        except (Down, Crowded, Lost) as error:
            raise ReservationsUnavailable(f"the shared limits cannot be asked: {error}") from error

    async def read(self, *commands: tuple[bytes | str | int, ...]) -> list[Any]:
        """The answers to plain commands, in one round trip. Raises `ReservationsUnavailable`."""
        try:
            wire = await self._link.wire()
            answers = [wire.ask(*command) for command in commands]
            return [checked(await answer) for answer in answers]
        except (Down, Crowded, Lost) as error:
            raise ReservationsUnavailable(f"the shared limits cannot be asked: {error}") from error

    async def run_id(self) -> bytes:
        """Of the server process that is connected now. Raises `ReservationsUnavailable`."""
        try:
            return (await self._link.wire()).run_id
        except Down as error:
            raise ReservationsUnavailable(f"the shared limits cannot be asked: {error}") from error

    async def _taken(self, root: bytes, call: str, name: str, claims: tuple[Claim, ...], ticket: Ticket | None) -> Any:
        asked = arguments_of(claims, ticket)
        wire = await self._link.wire()
        try:
            return await evaluate(wire, RESERVE, root, wire.run_id, name, call, self._worker, self._lease_us, *asked)
        except (Lost, asyncio.CancelledError) as error:
            # It may have been taken, or be taken later: it must not be, whichever of the two arrives first.
            self._outbox.post(FINISH, root, name, call, "void", 0)
            if ticket is not None:
                self._leaving.post(root, places_of(name, claims, ticket))
            if isinstance(error, Lost):
                raise ReservationsUnavailable(f"the shared limits did not answer: {error}") from error
            raise

    def _verdict(
        self, name: str, root: bytes, claims: tuple[Claim, ...], reply: Any, ticket: Ticket | None
    ) -> Reserved | Refused | Waiting:
        reply = checked(reply)
        tenant = claims[0].key[0]
        if reply[0] == b"unready":
            why = reply[1].decode()
            if self._unready.get(tenant) != why:
                self._unready[tenant] = why
                self._tell()
            raise ReservationsUnavailable(f"the counters of {tenant} have to be loaded again: {why}")
        if self._unready.pop(tenant, None) is not None:  # somebody else has loaded them
            self._beat.set()
            self._tell()
        if reply[0] == b"no":
            return refusal(claims, reply)
        if reply[0] == b"wait" and ticket is not None:
            return seated(claims, reply, ticket)
        if reply[0] != b"ok":
            raise ReservationsUnavailable("the reservation was given up before it was taken")
        if ticket is not None:
            ticket.at = None
        taken = as_charged(claims, reply)
        if any(not isinstance(claim, RateClaim | PauseClaim) for claim in claims):
            self._held[name] = (root, slots_of(name, claims))
        return Reserved(name, taken)

    def _end(self, reserved: Reserved, how: str, amounts: tuple[str | int, ...]) -> None:
        held = self._held.pop(reserved.id, None)
        if held is not None:
            root, slots = held
            call = reserved.id.rpartition("#")[0]
            self._outbox.post(FINISH, root, reserved.id, call, how, len(slots) // 2, *slots, *amounts)

    def _changed(self) -> None:
        if self._link.up is not None:
            self._outbox.flush()
            self._beat.set()
        self._tell()

    def _tell(self) -> None:
        if self._link.state == "half-open" and not self._degraded:
            return  # the first attempt after a loss: nobody was refused yet
        why = self.health().degraded
        begins, ends = bool(why) and not self._degraded, bool(self._degraded) and not why
        before, self._degraded = self._degraded, why
        if begins:
            logger.error("the shared limits are not available, calls that need them are refused: %s", why)
        elif ends:
            logger.warning("the shared limits are available again (%s)", before)
        if self._on_degraded is not None and (begins or ends):
            self._on_degraded("begin" if begins else "end", why or before)

    async def keep_now(self) -> None:
        """Tells the server that this process lives: what it holds is held for another time to live."""
        by_root: dict[bytes, list[str]] = {}
        for name, (root, _) in self._held.items():
            by_root.setdefault(root, []).append(name)
        if (wire := self._link.up) is None:
            return
        try:
            for root, names in by_root.items():
                for part in batched(names, KEPT_AT_ONCE):
                    await self._keep_part(wire, root, part)
        except (Lost, Crowded):
            pass  # told again as soon as there is a connection

    async def _keep_part(self, wire: Wire, root: bytes, names: tuple[str, ...]) -> None:
        # What is held at the very moment of asking: a slot taken again behind its own end would be nobody's.
        kept = kept_of(names, self._held)
        reply = await wire.ask(b"EVALSHA", KEEP.digest, b"1", root, self._lease_us, *kept)
        if forgotten(reply):
            kept = kept_of(names, self._held)
            await wire.ask(b"EVAL", KEEP.text, b"1", root, self._lease_us, *kept)

    async def _keep(self) -> None:
        """Every third of the time to live, and after each reconnect."""
        while True:
            self._beat.clear()
            await self.keep_now()
            try:
                async with asyncio.timeout(self._lease_us / 3e6):
                    await self._beat.wait()
            except TimeoutError:
                pass


def checked(reply: Any) -> Any:
    """The reply, unless it is an error of the server: raises `ReservationsUnavailable`."""
    if isinstance(reply, hiredis.ReplyError):
        raise ReservationsUnavailable(f"the shared limits refuse: {reply}")
    return reply
