"""Decisions that hold for a while only: calls whose rules ask for the time are judged again when they are sent.

A call is decided when its head is here, and may leave much later: after its body, a lookup, a wait for its turn. What
its rules say by the clock has to be true when it leaves. Nothing else is gathered again: the same call, the same facts.
"""

from datetime import datetime, tzinfo
from enum import Enum

from rules.call import Call, Facts
from rules.matching import asking_the_time
from rules.observing import observing


class Timing(Enum):
    """For how long a decision is known to hold, all but the time being the same."""

    ALWAYS = "always"
    """No rule that may match the call asks for the time."""
    MINUTE = "minute"
    """To the end of the minute in which it was made, by the policy's clocks."""
    MOMENT = "moment"
    """A rule asks for the moment itself: for no time at all."""


def timing_of(call: Call, facts: Facts) -> Timing:
    """For how long any decision on these facts holds. They are those that it was made on, content and actions too."""
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    if account is None or not account.by_clock:
        return Timing.ALWAYS
    clocks = tuple(rule.when.clock for rule in asking_the_time(call, facts, account) if rule.when is not None)
    if any(clock is not None and clock.within_minutes for clock in clocks):
        return Timing.MOMENT
    # A stage that only tries the rules ends with a day: in the moment in which a minute begins.
    return Timing.MINUTE if clocks or observing(call, facts) else Timing.ALWAYS


def holds_still(timing: Timing, judged: datetime, now: datetime, zone: tzinfo) -> bool:
    """Whether a decision that was made at `judged` is known to be that of `now`; both aware. A clock may step back."""
    if timing is Timing.ALWAYS:
        return True
    if timing is Timing.MOMENT:
        return judged == now
    return _minute(judged, zone) == _minute(now, zone)


def _minute(moment: datetime, zone: tzinfo) -> datetime:
    """What clocks of the zone show: all that such rules see of it."""
    return moment.astimezone(zone).replace(second=0, microsecond=0, tzinfo=None, fold=0)
