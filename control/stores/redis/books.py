"""Reading, loading and correcting what is counted in the server. For operators and control, never on a call's path."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any, Final, Protocol

from control.stores.counted import Budget, BudgetUse, Holder, Key
from control.stores.redis.encoding import name_of, root_of
from control.stores.redis.scripts import FINISH, LOAD, Script
from control.stores.verdicts import MAX_MICROS, told
from rules.claims import ReservationsUnavailable

_AT_ONCE: Final = 200
"""Entries a script loads: the server does nothing else meanwhile."""

type Entry = tuple[str, str, int, str]
"""(budget, window, amount in micro-units, meter)."""
type InFlight = tuple[str, tuple[Entry, ...]]
"""A call without an outcome, and what of it is counted at its maximum."""


class Asked(Protocol):
    """Whatever can ask the server; all of it raises `ReservationsUnavailable`."""

    async def ask(self, script: Script, root: bytes, *arguments: bytes | str | int) -> Any:
        """What a script answers."""

    async def read(self, *commands: tuple[bytes | str | int, ...]) -> list[Any]:
        """The answers to plain commands."""

    async def run_id(self) -> bytes:
        """Of the server process that is connected now."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A reservation that was counted at its maximum: its process was lost, or the server's data."""

    id: str
    call: str
    entries: tuple[Entry, ...]


async def budgets(asked: Asked, tenant: str) -> tuple[BudgetUse, ...]:
    """The newest window of every budget, by key. Not of one instant."""
    epoch = await _epoch(asked, tenant)
    if epoch is None:
        return ()
    (names,) = await asked.read(("SMEMBERS", epoch + b"i"))
    uses: list[BudgetUse] = []
    for part in batched(sorted(names), _AT_ONCE):
        found = await asked.read(*(("HMGET", epoch + b"b:" + name, "w", "s", "r") for name in part))
        for name, (window, spent, reserved) in zip(part, found, strict=True):
            if window is not None:  # else its window is over and it is gone
                uses.append(BudgetUse(name.decode(), window.decode(), int(spent), int(reserved)))
    return tuple(uses)


async def holders(asked: Asked, tenant: str) -> tuple[Holder, ...]:
    """The calls that hold a concurrency slot, the oldest first."""
    epoch = await _epoch(asked, tenant)
    if epoch is None:
        return ()
    (names,) = await asked.read(("ZRANGE", epoch + b"x", 0, -1))
    found: list[Holder] = []
    for part in batched(names, _AT_ONCE):
        for record in await asked.read(*(("GET", epoch + b"h:" + name) for name in part)):
            hold = {} if record is None else json.loads(record)
            if hold.get("leases"):
                leases = tuple(key for key, _ in hold["leases"])
                found.append(Holder(hold["call"], hold["worker"], int(hold["since"]) / 1e6, leases))
    return tuple(sorted(found, key=lambda holder: holder.since))


async def waiting(asked: Asked, tenant: str, slots: Sequence[str]) -> dict[str, int]:
    """How many calls wait for each of these slots."""
    found: dict[str, int] = {}
    for part in batched(slots, _AT_ONCE):
        counts = await asked.read(*(("ZCARD", root_of(tenant) + b":q:" + name.encode()) for name in part))
        found |= dict(zip(part, counts, strict=True))
    return found


async def corrections(asked: Asked, tenant: str) -> tuple[Correction, ...]:
    """What was counted at its maximum and is not corrected yet."""
    epoch = await _epoch(asked, tenant)
    if epoch is None:
        return ()
    (found,) = await asked.read(("HGETALL", epoch + b"c"))
    return tuple(
        Correction(
            name.decode(),
            (hold := json.loads(record))["call"],
            tuple((budget, window, int(amount), meter) for budget, window, amount, meter in hold["spends"]),
        )
        for name, record in batched(found, 2)
    )


async def correct(asked: Asked, tenant: str, correction: Correction, spent: Mapping[str, int]) -> bool:
    """Counts what it really came to; a meter that `spent` does not name stays at its maximum. Once."""
    amounts: list[str | int] = []
    for _, _, _, meter in correction.entries:
        if (amount := told(spent, meter, -1)) >= 0:
            amounts += (meter, amount)
    answer = await asked.ask(FINISH, root_of(tenant), correction.id, correction.call, "correct", 0, *amounts)
    return int(answer) == 2


async def unready(asked: Asked, tenants: Iterable[str]) -> tuple[str, ...]:
    """Tenants without counters, or with those of another server process."""
    names = tuple(tenants)
    if not names:
        return ()
    run_id = await asked.run_id()
    found = await asked.read(*(("GET", root_of(tenant)) for tenant in names))
    return tuple(
        tenant
        for tenant, generation in zip(names, found, strict=True)
        if generation is None or generation.partition(b"\n")[2] != run_id
    )


async def rebuild(
    asked: Asked,
    tenants: Iterable[str],
    budgets: Iterable[tuple[str, Budget]],
    tats_wall_us: Iterable[tuple[Key, int]],
    generation: str,
    in_flight: Iterable[InFlight] = (),
) -> tuple[str, ...]:
    """Loads what was counted from the ledger for the tenants that are unready, and returns them.

    Nothing of it is seen before all of a tenant's is there. `generation` has never been used before. Calls that were
    let out before the loss have to be in `budgets`, at their maximum where their end is not known; so the ledger is
    read only after every call that was reserved before has either its intent in it or is over: not before the
    pipeline's time-outs for reserving and committing have passed since the tenants became unready. Of those,
    `in_flight` names the calls without an outcome, so that a late end corrects them.
    """
    run_id = await asked.run_id()
    missing = await unready(asked, tenants)
    parts: dict[str, list[tuple[bytes | str | int, ...]]] = {tenant: [] for tenant in missing}
    for name, budget in budgets:
        tenant = name.partition("/")[0]
        if tenant in parts:
            spent = min(budget.spent, MAX_MICROS)
            parts[tenant].append((b"B", name, budget.window, budget.resets_at, spent))
    now_us = time.time_ns() // 1000
    for key, tat in tats_wall_us:
        if key[0] in parts and tat > now_us:
            parts[key[0]].append((b"R", name_of(key), tat - now_us))
    for call, entries in in_flight:
        for tenant in {budget.partition("/")[0] for budget, _, _, _ in entries} & parts.keys():
            spends = [[budget, window, str(amount), meter] for budget, window, amount, meter in entries]
            record = json.dumps({"call": call, "spends": spends, "onces": []})
            parts[tenant].append((b"C", call, record))
    for tenant, entries_of in parts.items():
        for part in batched(entries_of, _AT_ONCE):
            await asked.ask(LOAD, root_of(tenant), generation, *(word for entry in part for word in entry))
        if await asked.run_id() != run_id:
            raise ReservationsUnavailable("the server was restarted while its counters were loaded")
        await asked.ask(LOAD, root_of(tenant), generation, b"G", run_id)
    return missing


async def _epoch(asked: Asked, tenant: str) -> bytes | None:
    """What a tenant's keys of the generation in force begin with."""
    root = root_of(tenant)
    (generation,) = await asked.read(("GET", root))
    return None if generation is None else bytes(root + b":" + generation.partition(b"\n")[0] + b":")
