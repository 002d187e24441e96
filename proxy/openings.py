"""What a denial says of when it ends, at a bounded price: agents that are denied must not buy processor time so.

An answer is remembered until it comes true, by what was decided on. Beyond that an account has so many decisions a
minute, all of them together some more, and only small calls are looked into. Who has no more is denied as ever, and
told nothing of when.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from proxy.intake import Intake
from proxy.journey import Journey
from rules.call import Call, Facts
from rules.decision import Denied
from rules.openings import MAX_DECISIONS, Opening, may_open, search

A_MINUTE: Final = 1_000
"""Decisions of one account: a tenth of a second of processor time, as most rules are."""
IN_ALL_A_MINUTE: Final = 10_000
MAX_BODY: Final = 16 * 1024
"""Bytes of a body that is looked into again and again."""
MAX_ACTIONS: Final = 8
REMEMBERED: Final = 4_096
NONE_FOR: Final = timedelta(hours=1)
"""For so long it is believed that there is no opening: days that are further away come nearer."""


@dataclass(frozen=True, slots=True)
class _Answer:
    opening: Opening | None
    until: datetime


class Allowance:
    """How many decisions may be made for answers in the minute that runs."""

    def __init__(self) -> None:
        self._minute = -1
        self._in_all = 0
        self._used: dict[tuple[str, str], int] = {}

    def left(self, account: tuple[str, str], seconds: float) -> int:
        """For this account; `seconds` are monotonic."""
        minute = int(seconds // 60)
        if minute != self._minute:
            self._minute, self._in_all, self._used = minute, 0, {}
        return max(0, min(A_MINUTE - self._used.get(account, 0), IN_ALL_A_MINUTE - self._in_all))

    def take(self, account: tuple[str, str], decisions: int) -> None:
        """So many are used; negative ones were not needed after all. Never below none: a new minute may have begun."""
        self._used[account] = max(0, self._used.get(account, 0) + decisions)
        self._in_all = max(0, self._in_all + decisions)


class Openings:
    """Answers. One for the whole gate; all methods belong to the proxy's event loop."""

    def __init__(self, intake: Intake, seconds: Callable[[], float]) -> None:
        """`seconds`: a monotonic clock."""
        self._intake = intake
        self._seconds = seconds
        self._allowance = Allowance()
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()

    async def of(self, journey: Journey, call: Call, facts: Facts, denied: Denied) -> Opening | None:
        """When the call would be allowed; None where that is not known, or not worth its price."""
        decided = journey.decided
        if decided is None or len(journey.body) > MAX_BODY or len(facts.actions) > MAX_ACTIONS:
            return None
        if not may_open(call, facts, denied):
            return None
        now, key = facts.now, _key(denied.policy, decided.inputs, facts.now)
        known = self._answers.get(key)
        if known is not None and now < known.until:
            return None if known.opening is None else known.opening.seen_from(now)
        account = (call.principal.tenant, call.principal.account)
        at_most = min(self._allowance.left(account, self._seconds()), MAX_DECISIONS)
        if at_most == 0:
            return None
        # All that it may cost at once, so that many at the same time do not share what is left.
        self._allowance.take(account, at_most)
        found = await self._intake.aside(search, call, facts, denied, at_most)
        self._allowance.take(account, found.decisions - at_most)
        if found.whole:
            self._answers[key] = _Answer(found.opening, now + NONE_FOR if found.opening is None else found.opening.at)
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return found.opening


def _key(policy: str | None, inputs: bytes, now: datetime) -> bytes:
    """The call as it was decided, but for when: the first member of that name is the time (docs/formats)."""
    time = f'"now":"{now.isoformat(timespec="microseconds")}"'.encode("ascii")
    return hashlib.sha256((policy or "").encode() + inputs.replace(time, b"", 1)).digest()
