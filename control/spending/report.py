"""Asks the rows: what was spent, on what, for what."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from control.spending.fold import DENIED
from control.spending.views import NOTHING, OUTCOME, REACHED, TOLD_APART, Amount, Seen, SpendRow, SpendWanted
from control.stores.sqlite import Database
from rules.claims import PRICE
from rules.workflows import WorkflowOutcome

type OutcomeOf = Callable[[str, str], WorkflowOutcome | None]
"""What counts as an outcome, by tenant and workflow."""
type _Key = tuple[str, str, str, str, str, str, str]


class _Group:
    """One row in the making."""

    def __init__(self) -> None:
        self.calls = self.denied = self.failed = self.retries = 0
        self.runs: set[tuple[str, str]] = set()
        self.outcomes: int | None = None
        self.first = self.last = ""
        self.amounts: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])

    def achieve(self, count: int) -> None:
        self.outcomes = (self.outcomes or 0) + count

    def row(self, key: _Key) -> SpendRow:
        amounts = (
            Amount(meter, unit, micros, failed, retried, self._each(micros))
            # The price first: it is what people look for.
            for (meter, unit), (micros, failed, retried) in sorted(
                self.amounts.items(), key=lambda item: (item[0][0] != PRICE, item[0])
            )
        )
        tenant, day, account, workflow, run, tool, became = key
        return SpendRow(
            tenant, day, account, workflow, run, tool, self.calls, self.denied, self.failed, self.retries,
            len(self.runs), self.outcomes, self.first, self.last, tuple(amounts), became,
        )  # fmt: skip

    def _each(self, micros: int) -> int | None:
        if not self.outcomes:
            return None
        return (2 * micros + self.outcomes) // (2 * self.outcomes)  # to the nearest, halves up


def rows_of(database: Database, wanted: SpendWanted, since: str, outcome_of: OutcomeOf) -> tuple[SpendRow, ...]:
    """One row for each of what rows are told apart by, by its names. Raises `StoreUnavailable`."""
    groups: defaultdict[_Key, _Group] = defaultdict(_Group)
    condition, values = _condition(wanted, since)
    became = _became(database, wanted, since, outcome_of) if OUTCOME in wanted.by else {}
    columns = f"tenant, {', '.join(TOLD_APART)}"
    for *who, status, calls, attempts, retries, repeats, first, last in database.query(
        f"SELECT {columns}, status, calls, attempts, retries, repeats, first, last FROM calls WHERE {condition}",  # noqa: S608
        values,
    ):
        group = groups[_key(who, wanted.by, became)]
        tenant, _, _, workflow, run, tool = who
        group.runs.add((tenant, run))
        group.first = min(group.first or first, first)
        group.last = max(group.last, last)
        group.calls += calls
        group.retries += retries
        if status == DENIED:
            group.denied += attempts
        elif not 200 <= status < 400:
            group.failed += attempts
        outcome = outcome_of(tenant, workflow)
        if outcome is not None and status != DENIED:
            group.achieve(attempts - repeats if outcome.counts(tool, status) else 0)
    for *who, meter, unit, micros, failed, retried in database.query(
        f"SELECT {columns}, meter, unit, micros, failed, retried FROM spent WHERE {condition}",  # noqa: S608
        values,
    ):
        amount = groups[_key(who, wanted.by, became)].amounts[meter, unit]
        for place, part in enumerate((micros, failed, retried)):
            amount[place] += part
    if wanted.tool is None:
        for *who, count in database.query(
            f"SELECT tenant, day, account, workflow, run, '', count FROM declared WHERE {condition}",  # noqa: S608
            values,
        ):
            groups[_key(who, wanted.by, became)].achieve(count)
    return tuple(groups[key].row(key) for key in sorted(groups))


def seen_of(database: Database, accounts: Iterable[tuple[str, str]]) -> tuple[Seen, ...]:
    """When each account last called. Raises `StoreUnavailable`."""
    rows = database.query("SELECT tenant, account, at, call, tool FROM seen")
    seen: Mapping[tuple[str, str], tuple[str, str, str]] = {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows}
    return tuple(Seen(*account, *(seen.get(account) or (None, "", ""))) for account in sorted(accounts))


def _became(
    database: Database, wanted: SpendWanted, since: str, outcome_of: OutcomeOf
) -> Mapping[tuple[str, str, str, str], str]:
    """What became of each run, by all of its calls; a run that is not there cannot be told."""
    runs = replace(wanted, tool=None, by=("account", "workflow", "run"))
    return {
        (row.tenant, row.account, row.workflow, row.run): REACHED if row.outcomes else NOTHING
        for row in rows_of(database, runs, since, outcome_of)
        if row.run and row.outcomes is not None
    }


def _key(who: list[Any], by: tuple[str, ...], became: Mapping[tuple[str, str, str, str], str]) -> _Key:
    day, account, workflow, run, tool = (
        value if name in by else "" for name, value in zip(TOLD_APART, who[1:], strict=True)
    )
    return who[0], day, account, workflow, run, tool, became.get((who[0], who[2], who[3], who[4]), "")


def _condition(wanted: SpendWanted, since: str) -> tuple[str, tuple[str, ...]]:
    names = ("tenant", "account", "workflow", "run", "tool")
    asked: dict[str, str] = {name: value for name in names if (value := getattr(wanted, name)) is not None}
    asked_for = " AND ".join(("day >= ?", *(f"{name} = ?" for name in asked)))
    return asked_for, (since, *asked.values())
