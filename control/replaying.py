"""A replay: calls as the ledger has them, decided again by another policy on what they were decided on.

The ledger says which calls there were; what is kept says on what they were decided. So a call whose inputs were lost,
erased or have gone is counted as one that cannot be told, and a row that no record speaks of is not counted.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from control.input_views import InputOperations, InputsRead, InputsWanted
from control.inputs.rows import micros
from ledger import Cursor
from ledger.directory import segment_files
from rules.decision import Allowed
from rules.inputs import DecisionInputs, InputsInvalid, decide_again, reads_unread_body
from rules.policy.compile import TenantPolicy
from rules.trial import rule_of

LONGEST_CALL: Final = timedelta(hours=2)
"""A call is decided this long before its record at the most: the gate gives up on every call after an hour."""
EXAMPLES: Final = 5
_DECIDED: Final = frozenset({"call.intent", "call.denied"})


class Change(StrEnum):
    """What a candidate makes of a call, beside what was made of it."""

    SAME = "same"
    NOW_ALLOWED = "now allowed"
    NOW_DENIED = "now denied"
    UNTOLD = "could not tell"


class Why(StrEnum):
    """Why it cannot be told."""

    NOT_KEPT = "not kept"
    ERASED = "erased"
    UNREADABLE = "does not open"
    BODY_UNREAD = "a rule reads the body, which was not read then"
    NOT_ASKED = "a rule needs what the service was not asked for then"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which calls: by when their records were written."""

    since: datetime
    until: datetime
    tenant: str | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls of one account for which the same holds."""

    change: Change
    tenant: str
    account: str
    was: str
    """`allow` or the code of the refusal, as rules had it; `-` where that is not known."""
    was_rule: str | None
    now: str
    """The same under the candidate; why, where it cannot be told."""
    now_rule: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """One call of a kind."""

    call: str
    target: str | None
    """Method, host, path and query; None where it is not known."""


@dataclass(slots=True)
class Replayed:
    """What came of it."""

    counts: dict[Change, int] = field(default_factory=lambda: dict.fromkeys(Change, 0))
    changed: dict[Kind, int] = field(default_factory=dict)
    examples: dict[Kind, list[Example]] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    @property
    def drift(self) -> bool:
        """Whether anything changes, or may."""
        return self.counts[Change.SAME] != self.calls

    def take(self, kind: Kind, example: Example) -> None:
        """One call more."""
        self.counts[kind.change] += 1
        if kind.change is not Change.SAME:
            self.changed[kind] = self.changed.get(kind, 0) + 1
            if len(shown := self.examples.setdefault(kind, [])) < EXAMPLES:
                shown.append(example)


def replay(
    ledger: Path,
    inputs: InputOperations,
    candidate: Mapping[str, TenantPolicy],
    asked: Asked,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Replayed:
    """Every call of the ledger that was decided by rules in this time, decided by the candidate.

    Raises what the operations raise, and `LedgerRefused`.
    """
    replayed = Replayed()
    for call, (tenant, account), read in recorded_calls(ledger, inputs, asked, progress):
        if read is None:
            replayed.take(Kind(Change.UNTOLD, tenant, account, "-", None, Why.NOT_KEPT, None), Example(call, None))
        else:
            kind, target = _judged(read, candidate.get(tenant))
            replayed.take(kind, Example(call, target))
    return replayed


def recorded_calls(
    ledger: Path, inputs: InputOperations, asked: Asked, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, tuple[str, str], InputsRead | None]]:
    """Every call of the ledger that was decided by rules in this time, whose it is, and what is kept of it.

    In the order of time; None for those of which nothing is kept, which come last. Raises as `replay` does.
    """
    recorded = dict(_decided(ledger, asked))
    wanted = InputsWanted(
        tenant=asked.tenant, account=asked.account, since=micros(asked.since - LONGEST_CALL), before=micros(asked.until)
    )
    of = len(recorded)
    place: str | None = ""
    while place is not None and recorded:
        page = inputs.page(wanted, place)
        for read in page.calls:
            if (who := recorded.pop(read.call, None)) is not None:
                yield read.call, who, read
        progress(of - len(recorded), of)
        place = page.next
    for call, whose in recorded.items():
        yield call, whose, None


def _judged(read: InputsRead, policy: TenantPolicy | None) -> tuple[Kind, str | None]:
    was = read.code or "allow"

    def untold(why: Why, target: str | None = None) -> tuple[Kind, str | None]:
        return Kind(Change.UNTOLD, read.tenant, read.account, was, read.rule, why, None), target

    if read.inputs is None:
        return untold(Why.ERASED if read.erased else Why.UNREADABLE)
    try:
        inputs = DecisionInputs.from_bytes(read.inputs.encode("ascii"))
    except InputsInvalid:
        return untold(Why.UNREADABLE)
    query = f"?{inputs.query}" if inputs.query else ""
    target = f"{inputs.method} {inputs.scheme}://{inputs.host}:{inputs.port}{inputs.path}{query}"
    decision = decide_again(inputs, policy)
    if decision is None:
        return untold(Why.BODY_UNREAD if reads_unread_body(inputs, policy) else Why.NOT_ASKED, target)
    allowed = isinstance(decision, Allowed)
    now = "allow" if isinstance(decision, Allowed) else str(decision.reasons[0].code)
    change = Change.SAME if allowed is (read.code is None) else Change.NOW_ALLOWED if allowed else Change.NOW_DENIED
    return Kind(change, read.tenant, read.account, was, read.rule, now, rule_of(decision)), target


def _decided(ledger: Path, asked: Asked) -> Iterator[tuple[str, tuple[str, str]]]:
    """Calls that were decided by rules, and whose they are, by their first record in this time."""
    since, until = (at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for at in (asked.since, asked.until))
    cursor = Cursor(ledger, _start(ledger, since))
    while records := cursor.read():
        if records[0].ts >= until:
            return
        for record in records:
            if record.type not in _DECIDED or not since <= record.ts < until:
                continue
            decision, agent, call = record.body["decision"], record.body["agent"], record.body["call"]
            if not isinstance(decision, dict) or not isinstance(agent, dict) or record.body["attempt"] != 1:
                continue
            account = str(agent["id"])
            if decision["inputs"] is None or asked.tenant not in (None, record.tenant):
                continue
            if asked.account in (None, account):
                yield str(call), (record.tenant, account)


def _start(ledger: Path, since: str) -> int:
    """Seq of a record that is not later than this moment, without reading what lies before."""
    for first, _ in reversed(segment_files(ledger)):
        found = Cursor(ledger, first).read(1)
        if found and found[0].ts < since:
            return first
    return 0
