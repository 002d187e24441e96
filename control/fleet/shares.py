"""`Shares`: what control grants of tenants' limits while the counters that all workers share are away.

Of tenants whose policy says so (`when_unavailable`), and only after everything that was let out before is in the ledger
or over. One tenant goes through

    shared -> waits -> local -> returns -> shared

and at no instant two places grant its calls. Workers use counters only as long as control's word on them is not older
than its word on revocations, so once a lease is over nobody asks the shared store any more; another while later all
that it had granted is in the ledger. The way back is the same: nobody grants, until the shared store has been loaded
from the ledger with all that was granted here.
"""

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal, Protocol

from control.fleet.claim_frames import claims_body, parse_claims, refused_body
from control.fleet.frames import FrameInvalid
from control.fleet.local_share import LocalShare
from control.fleet.shared_limits import SETTLED_SECONDS, SharedLimits
from control.fleet.world import LEASE_SECONDS
from control.state import State, StateUnavailable
from credentials.actor import SYSTEM
from ledger import LedgerError, PosixFiles
from rules.claims import Refused, ReservationsUnavailable

logger = logging.getLogger("exeat.limits")

LOOK_SECONDS: Final = 0.5
WAIT_SECONDS: Final = LEASE_SECONDS + SETTLED_SECONDS
"""Until nobody can ask the store that was in force, and then until all that it had granted is in the ledger or over."""
REPORT_SECONDS: Final = 2.0
GONE_SECONDS: Final = 10.0
"""A worker that has not come back after so long is lost; one that lives has cut its calls long before."""
MARKER: Final = "limits-local"
"""Names in the state folder the tenants of which something was granted here that the shared store does not know."""

type Phase = Literal["waits", "local", "returns"]


class Workers(Protocol):
    """The workers, from any thread."""

    def connected(self) -> set[str]:
        """Their names."""
        ...

    def want_reports(self) -> None:
        """Each says what it has in flight."""
        ...


@dataclass(slots=True)
class _Away:
    phase: Phase
    since: float
    lost_us: int
    """When the shared store was lost, on the wall clock."""
    granted: bool = False
    """The shared store lacks what was granted here, and must not be used before it was loaded."""
    epoch: int | None = None
    share: LocalShare | None = None
    reported: set[str] = field(default_factory=set)


class Shares:
    """One per control process. `look` belongs to the loop of the shared store; all else is for any thread."""

    def __init__(
        self, state: State, limits: SharedLimits, workers: Workers, *, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._state = state
        self._limits = limits
        self._workers = workers
        self._wait_seconds = wait_seconds
        self._lock = Lock()
        self._epochs = itertools.count(time.time_ns() // 1000)
        self._away: dict[str, _Away] = {}
        self._gone: dict[str, float] = {}
        self._marker = state.directory / MARKER
        for tenant in self._begun():
            now_us = time.time_ns() // 1000
            # Grants nothing: it knows the slots of calls in flight, as soon as workers say what they have.
            share = LocalShare(lost_us=now_us)
            self._away[tenant] = _Away("returns", time.monotonic(), now_us, granted=True, share=share)
        self.word: Mapping[str, int | None] = {}
        """Tenants that the shared store does not count now, by which epoch they are granted here; None: by nobody."""
        self._tell()

    def _begun(self) -> set[str]:
        """Tenants that a control before this one granted of."""
        try:
            return _marked(self._marker)
        except ValueError:
            logger.error("%s is not readable: all that may be in it is loaded anew", self._marker)
            return set(self.percents())

    def percents(self) -> dict[str, int]:
        """The shares of tenants that have chosen one."""
        policy = self._state.policy
        tenants = () if policy is None else policy.tenants.values()
        return {one.tenant: one.share_percent for one in tenants if one.share_percent is not None}

    def serves_all(self) -> bool:
        """Whether every tenant's limits are granted here now."""
        policy = self._state.policy
        word = self.word
        return policy is not None and bool(word) and all(word.get(tenant) is not None for tenant in policy.tenants)

    def counting(self, tenant: str) -> LocalShare | None:
        """What counts a tenant's calls now in place of the shared store; None: that store does.

        Raises `ReservationsUnavailable`: nothing does, and what the store says may be of before.
        """
        with self._lock:
            away = self._away.get(tenant)
            if away is not None and (away.phase != "local" or away.share is None):
                raise ReservationsUnavailable(f"nobody grants of the limits of {tenant} before it is known who did")
            return None if away is None else away.share

    def degraded(self) -> str | None:
        """Why calls of some tenant are refused, whatever the shared store answers by now; None when none are."""
        nobody = sorted(tenant for tenant, epoch in self.word.items() if epoch is None)
        return f"nobody grants of the limits of {', '.join(nobody)} before it is known who did" if nobody else None

    def why_not(self) -> str | None:
        """Why no tenant's calls are let out; None when one's are, or when it is not for this."""
        policy = self._state.policy
        word = self.word
        refused = policy is not None and bool(word) and all(word.get(tenant, 0) is None for tenant in policy.tenants)
        return self.degraded() if refused else None

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know."""
        percents, word = self.percents(), self.word
        return tuple(
            f"the shared counters are away: {percents.get(tenant, 0)}% of {tenant}'s limits is granted by control"
            for tenant, epoch in sorted(word.items())
            if epoch is not None
        )

    def gauges(self) -> dict[str, float]:
        """For the metrics."""
        return {"limits_local": float(sum(epoch is not None for epoch in self.word.values()))}

    # the loop of the shared store

    async def keep(self) -> None:
        """Looks again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except ReservationsUnavailable as error:
                logger.debug("the counters cannot be reached: %s", error)
            except (StateUnavailable, LedgerError, OSError) as error:
                logger.error("shares of limits are looked after again later: %s", error)

    async def look(self) -> None:
        """Each tenant goes on by one step if it can."""
        percents = self.percents()
        up = self._limits.store.health().state == "closed"
        for tenant in sorted({*percents, *self._away}):
            await self._step(tenant, percents.get(tenant), time.monotonic(), up=up)
        with self._lock:
            now, connected = time.monotonic(), self._workers.connected()
            lost = [one for one, at in self._gone.items() if one not in connected and now - at > GONE_SECONDS]
            for worker in lost:
                del self._gone[worker]
                for away in self._away.values():
                    if away.share is not None:
                        away.share.keep_only(worker, set())

    async def _step(self, tenant: str, percent: int | None, now: float, *, up: bool) -> None:
        away = self._away.get(tenant)
        if away is None:
            if not up and percent is not None:
                self._put(tenant, _Away("waits", now, time.time_ns() // 1000))
        elif away.phase == "waits":
            if up and not away.granted:
                self._put(tenant, None)  # nobody has granted anything meanwhile but the shared store
            elif up:
                self._put(tenant, _Away("returns", now, away.lost_us, granted=True, share=away.share))
            elif percent is not None and now - away.since >= self._wait_seconds:
                await self._begin(tenant, away, percent)
        elif away.phase == "local":
            if up or percent is None:
                logger.warning("the shared counters of %s are loaded again; until then nobody grants", tenant)
                self._put(tenant, _Away("returns", now, away.lost_us, granted=True, share=away.share))
        elif not up:
            self._put(tenant, _Away("waits", now, time.time_ns() // 1000, granted=True, share=away.share))
        elif now - away.since >= self._wait_seconds:
            await self._return(tenant, away)

    async def _begin(self, tenant: str, away: _Away, percent: int) -> None:
        """All that is in the ledger is counted, all that is in flight known; then it is granted here."""
        budgets, tats = await self._limits.counted(tenant)
        with self._lock:
            untold = [] if away.share is None else away.share.untold_tats()
            away.share, away.reported = LocalShare(budgets, tats, away.lost_us, untold), set()
        self._workers.want_reports()
        deadline = time.monotonic() + REPORT_SECONDS
        while self._workers.connected() - away.reported:
            if time.monotonic() > deadline:
                logger.error("not every worker says what it has in flight; %s has to wait", tenant)
                return
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self._mark, {*self._begun(), tenant})
        away.granted = True  # the file says so, and is removed once the shared store has been loaded
        # Tried again twice a second until it succeeds: nothing of it may be on record before the rest is done.
        detail = {"tenant": tenant, "share": f"{percent}%"}
        await asyncio.to_thread(self._state.record_act, SYSTEM, "limits.local", detail)
        logger.warning("the shared counters are away: %d%% of the limits of %s is granted here", percent, tenant)
        with self._lock:
            away.phase, away.epoch = "local", next(self._epochs)
        self._tell()

    async def _return(self, tenant: str, away: _Away) -> None:
        """The shared store counts again, with everything that was granted here."""
        with self._lock:
            untold = [] if away.share is None else away.share.untold_tats()
            in_flight = [] if away.share is None else [held.reserved for held in away.share.held()]
        await self._limits.load_anew(tenant, untold, in_flight)
        await asyncio.to_thread(self._mark, self._begun() - {tenant})
        self._put(tenant, None)
        logger.warning("the shared counters of %s are in force again", tenant)

    def _put(self, tenant: str, away: _Away | None) -> None:
        with self._lock:
            if away is None:
                self._away.pop(tenant, None)
            else:
                self._away[tenant] = away
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            self.word = {tenant: away.epoch if away.phase == "local" else None for tenant, away in self._away.items()}

    def _mark(self, tenants: set[str]) -> None:
        files = PosixFiles()
        if tenants:
            files.replace(self._marker, json.dumps(sorted(tenants)).encode())
        else:
            files.remove(self._marker)

    # what workers say

    def reserve(self, worker: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a worker's reserve. Raises `FrameInvalid`."""
        name, tenant, claims = str(body["name"]), str(body["tenant"]), parse_claims(body["claims"])
        percent = self.percents().get(tenant)
        if any(claim.key[0] != tenant for claim in claims):
            raise FrameInvalid("claims of another tenant than is asked for")
        with self._lock:
            away = self._away.get(tenant)
            share = None if away is None or away.phase != "local" or away.epoch != body["epoch"] else away.share
            if share is None or percent is None:
                return {"name": name, "unavailable": "nothing is granted here now"}
            try:
                answer = share.reserve(worker, name, name.rpartition("#")[0], claims, percent)
            except ReservationsUnavailable as error:
                return {"name": name, "unavailable": str(error)}
        if isinstance(answer, Refused):
            return {"name": name, "refused": refused_body(answer, claims.index(answer.claim))}
        return {"name": name, "claims": claims_body(answer.claims)}

    def end(self, body: Mapping[str, Any]) -> None:
        """A call of a worker has ended."""
        how = body["how"]
        if how not in ("settle", "refuse", "release"):
            raise FrameInvalid("a call ends by settle, refuse or release")
        self._each(lambda share: share.end(str(body["name"]), how, body["amounts"]))

    def pause(self, body: Mapping[str, Any]) -> None:
        """A service has asked to wait."""
        key = tuple(map(str, body["key"]))
        self._each(lambda share: share.pause(key, float(body["seconds"])))

    def holds(self, worker: str, body: Mapping[str, Any]) -> None:
        """What a worker has in flight, or may have soon. What it had before and has no more counts at its maximum."""
        asking = set(map(str, body["asking"]))
        calls = [(str(name), bool(local), parse_claims(claims)) for name, local, claims in body["calls"]]
        with self._lock:
            self._gone.pop(worker, None)
            for tenant, away in self._away.items():
                if away.share is None:
                    continue
                mine = [one for one in calls if one[2] and one[2][0].key[0] == tenant]
                away.share.keep_only(worker, {name for name, _, _ in mine} | asking)
                for name, local, claims in mine:
                    away.share.occupy(worker, name, claims, local=local)
                away.reported.add(worker)

    def gone(self, worker: str) -> None:
        """A worker's line has ended; it may come back."""
        with self._lock:
            self._gone[worker] = time.monotonic()

    def _each(self, do: Callable[[LocalShare], None]) -> None:
        with self._lock:
            for away in self._away.values():
                if away.share is not None:
                    do(away.share)


def _marked(path: Path) -> set[str]:
    """Raises ValueError."""
    try:
        return set(map(str, json.loads(path.read_bytes())))
    except FileNotFoundError:
        return set()
    except TypeError as error:
        raise ValueError(str(error)) from None
