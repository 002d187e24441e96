"""The shared counters as control looks after them: no place of record, loaded from the ledger when they are gone.

Whatever is counted can be counted again from the ledger: a snapshot at record N and the records after it
(`control.stores.limits_replay`). That happens when a fleet starts, for what the server holds may be of before; and when
the server has lost its data or was restarted, which its scripts notice. Until then calls that need a limit are refused.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Container, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import batched
from typing import Any, Final

from control.fleet.local_share import LocalShare
from control.fleet.parts import shared_counters
from control.fleet.plan import Plan
from control.state import State, StateUnavailable
from control.stores.counted import Budget, BudgetUse, Holder, Key
from control.stores.limits_replay import LimitsSnapshot
from control.stores.recount import Recount
from control.stores.redis.encoding import KEPT_AT_ONCE, kept_of, root_of, slots_of
from control.stores.redis.scripts import KEEP
from control.stores.redis.store import LEASE_SECONDS, RedisReservations
from credentials.actor import SYSTEM
from ledger import LedgerError
from proxy.config import Timeouts
from rules.claims import ReservationsUnavailable, Reserved

logger = logging.getLogger("exeat.limits")

LOOK_SECONDS: Final = 0.5
_TIMEOUTS: Final = Timeouts()
SETTLED_SECONDS: Final = _TIMEOUTS.reserve + _TIMEOUTS.commit + 0.5
"""From the loss on until every call that was let out before it is in the ledger or over: the pipeline's time-outs for
reserving and committing, and some for its sweep."""
SNAPSHOT_SECONDS: Final = 30.0
SNAPSHOT_RECORDS: Final = 20_000
ASK_SECONDS: Final = 2.0


class SharedCounters:
    """`control.limit_views.Counters` of what decides: the shared store, or a share in its place.

    For other threads than its loop's.
    """

    def __init__(self, store: RedisReservations, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self.instead: Callable[[str], LocalShare | None] = lambda _: None
        """What counts a tenant's calls now in place of the store. Raises `ReservationsUnavailable`: nothing does."""

    def budgets(self, tenant: str) -> tuple[BudgetUse, ...]:
        """See `Counters.budgets`."""
        share = self.instead(tenant)
        return self._asked(self._store.budgets(tenant)) if share is None else share.budgets()

    def holders(self, tenant: str) -> tuple[Holder, ...]:
        """See `Counters.holders`."""
        share = self.instead(tenant)
        return self._asked(self._store.holders(tenant)) if share is None else share.holders(tenant)

    def waiting(self, tenant: str, slots: Sequence[str]) -> Mapping[str, int]:
        """See `Counters.waiting`. Nobody waits while a share is granted."""
        if self.instead(tenant) is not None:
            return {}
        return self._asked(self._store.waiting(tenant, slots))

    def _asked[T](self, asking: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(asking, self._loop).result(ASK_SECONDS)
        except TimeoutError as error:
            raise ReservationsUnavailable("the shared limits did not answer in time") from error


class SharedLimits:
    """One per control process. Belongs to its loop."""

    def __init__(self, state: State, store: RedisReservations, recount: Recount) -> None:
        self._state = state
        self.store = store
        self._recount = recount
        self._saved = recount.size
        self._save_at = time.monotonic() + SNAPSHOT_SECONDS
        self._unready_since: dict[str, float] = {}
        self._waiting: tuple[str, ...] = ()
        """Tenants whose counters are gone, and cannot be loaded before the ledger has every call."""
        self._served: set[str] | None = None
        """Tenants of which calls may have been let out since the fleet started; None: of any."""
        self._loaded = 0
        self._looking = asyncio.Lock()
        self._one_counts = asyncio.Lock()
        self.away: Callable[[], Container[str]] = tuple
        """Tenants whose counters somebody else looks after for now."""

    @classmethod
    async def open(cls, plan: Plan, state: State, *, anew: bool) -> "SharedLimits":
        """Connected, or trying to be. `anew`: what the server holds is of before this fleet, and is not used.

        Raises `RedisRefused` for a server that must not be used.
        """
        recount = await asyncio.to_thread(Recount.begin, state.limits_snapshot(), state.policy)
        store = await shared_counters(plan, "control")
        found = cls(state, store, recount)
        if anew:
            await found._forget()
        return found

    async def _forget(self) -> None:
        """What is there is not used any more. Nobody serves yet."""
        while True:
            try:
                await self.store.read(*(("DEL", root_of(tenant)) for tenant in self._tenants()), ("PING",))
            except ReservationsUnavailable as error:
                logger.error("the counters cannot be reached yet: %s", error)
                await asyncio.sleep(LOOK_SECONDS)
            else:
                self._served = set()
                await self.look()
                return

    def _tenants(self) -> tuple[str, ...]:
        policy = self._state.policy
        return () if policy is None else tuple(policy.tenants)

    async def counted(self, tenant: str) -> tuple[list[tuple[str, Budget]], list[tuple[Key, int]]]:
        """What the ledger says that a tenant has used: budgets, and buckets of rates."""
        async with self._counting() as recount:
            budgets = [one for one in recount.budgets() if one[0].partition("/")[0] == tenant]
            return budgets, [one for one in recount.tats() if one[0][0] == tenant]

    async def load_anew(
        self, tenant: str, tats_wall_us: Iterable[tuple[Key, int]], in_flight: Iterable[Reserved]
    ) -> None:
        """What the server has counted of a tenant is replaced by what the ledger says, and by these buckets.

        The slots of these calls are taken there, for as long as those of a worker that is not heard of: their own
        worker may not reach the server yet. Raises `ReservationsUnavailable`; nothing is in force then.
        """
        root = root_of(tenant)
        await self.store.read(("DEL", root))
        held = {one.id: (root, slots_of(one.id, one.claims)) for one in in_flight}
        for part in batched(held, KEPT_AT_ONCE):
            await self.store.ask(KEEP, root, int(LEASE_SECONDS * 1_000_000), *kept_of(part, held))
        await self._load([tenant], tats_wall_us)

    def why_not(self) -> str | None:
        """Why calls are refused; None when they are not."""
        why = self.store.health().degraded
        return f"limits: {why}" if why else None

    def degraded(self) -> str | None:
        """Why calls of some tenant or of all are refused; None when none are."""
        if (why := self.store.health().degraded) or not self._waiting:
            return why or None
        return f"the counters of {', '.join(self._waiting)} are gone and not loaded yet"

    def gauges(self) -> dict[str, float]:
        """For the metrics."""
        health = self.store.health()
        return {"limits_degraded": float(bool(health.degraded)), "limits_loaded": float(self._loaded)}

    async def keep(self) -> None:
        """Counters that are gone are loaded, those that expired are corrected, and a start has little to read."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
                if time.monotonic() >= self._save_at:
                    self._save_at = time.monotonic() + SNAPSHOT_SECONDS
                    async with self._counting() as recount:
                        await asyncio.to_thread(self._save)
                        await self._correct(recount)
            except ReservationsUnavailable as error:
                logger.debug("the counters cannot be reached: %s", error)
            except (StateUnavailable, LedgerError, OSError) as error:
                logger.error("limits are looked after again later: %s", error)

    async def look(self) -> None:
        """Tenants whose counters are gone have them again, as soon as it is safe. Raises `ReservationsUnavailable`."""
        async with self._looking:
            now = time.monotonic()
            away = self.away()
            unready = await self.store.unready(tenant for tenant in self._tenants() if tenant not in away)
            self._unready_since = {tenant: self._unready_since.get(tenant, now) for tenant in unready}
            # Of a tenant of which nothing was let out yet the ledger has everything.
            due = [
                tenant
                for tenant, since in self._unready_since.items()
                if now - since >= SETTLED_SECONDS or (self._served is not None and tenant not in self._served)
            ]
            self._waiting = tuple(tenant for tenant in self._unready_since if tenant not in due)
            if due:
                await self._load(due)
            if self._served is not None:
                self._served.update(self._tenants())

    async def _load(self, tenants: list[str], tats_wall_us: Iterable[tuple[Key, int]] = ()) -> None:
        async with self._counting() as recount:
            budgets, tats = recount.budgets(), (*recount.tats(), *tats_wall_us)
            in_flight, size = recount.in_flight(), recount.size
        loaded = await self.store.rebuild(tenants, budgets, tats, secrets.token_hex(8), in_flight)
        if loaded:
            self._loaded += len(loaded)
            logger.warning("the counters of %s were loaded from the ledger", ", ".join(loaded))
            detail = {"tenants": ", ".join(loaded)[:1000], "records": str(size)}
            await asyncio.to_thread(self._state.record_act, SYSTEM, "limits.load", detail)
        for tenant in loaded:
            self._unready_since.pop(tenant, None)

    @asynccontextmanager
    async def _counting(self) -> AsyncIterator[Recount]:
        """Everything in the ledger is counted, and nobody else counts until it is left: two would count twice."""
        async with self._one_counts:
            following = asyncio.ensure_future(
                asyncio.to_thread(self._recount.follow, self._state.ledger.directory, self._state.policy)
            )
            try:
                await asyncio.shield(following)
            except asyncio.CancelledError:
                await asyncio.wait((following,))  # its thread goes on
                raise
            yield self._recount

    def _save(self) -> None:
        if self._recount.size - self._saved >= SNAPSHOT_RECORDS:
            self.save()

    def save(self) -> None:
        """The next start reads the ledger from here."""
        snapshot: LimitsSnapshot = self._recount.snapshot()
        self._state.save_limits(snapshot)
        self._saved = snapshot.size

    async def _correct(self, recount: Recount) -> None:
        """What was counted at its maximum because its process was lost is what the ledger says it was."""
        for tenant in self._tenants():
            for correction in await self.store.corrections(tenant):
                spent = recount.spent(correction.call)
                if spent is not None:
                    await self.store.correct(tenant, correction, spent)

    async def close(self) -> None:
        """Counted to the end and saved; nobody serves any more."""
        try:
            async with self._counting():
                await asyncio.to_thread(self.save)
        except (StateUnavailable, LedgerError, OSError) as error:
            logger.error("the counters were not saved, the next start reads more of the ledger: %s", error)
        await self.store.stop()
