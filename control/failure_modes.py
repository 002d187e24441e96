"""What each control does when what it depends on fails: the one list. `docs/reference/failure-modes.md` has the rest.

A control that is not here does not exist; a test compares the list with that page, whose every row names the test that
takes the dependency away.
"""

from typing import Final, Literal

from control.status_views import FailureMode
from rules.codes import Code

type Mode = Literal["closed", "bounded", "open"]
"""closed: what needs it is refused. bounded: calls go on, and what may go wrong has a bound that the page states.
open: calls go on; something else than the call is lost, and counted."""


def _mode(control: str, mode: Mode, *codes: Code, watched: bool = False) -> FailureMode:
    return FailureMode(control, mode, tuple(code.value for code in codes), watched)


MODES: Final = (
    _mode("credentials", "closed", Code.INTERNAL),
    _mode("revocations", "closed", Code.CONTROL_UNAVAILABLE, watched=True),
    _mode("stored", "closed", Code.NO_POLICY, Code.SECRET_UNAVAILABLE, watched=True),
    _mode("classification", "closed", Code.INTERNAL),
    _mode("lookups", "closed", Code.LOOKUP_FAILED),
    _mode("decision", "closed", Code.GUARD_FAILED, Code.INTERNAL),
    _mode("limits", "closed", Code.LIMITS_UNAVAILABLE, watched=True),
    _mode("shares", "bounded", Code.LIMITS_UNAVAILABLE),
    _mode("counted", "bounded"),
    _mode("ledger", "closed", Code.LEDGER_UNAVAILABLE, watched=True),
    _mode("disk", "closed", Code.LEDGER_UNAVAILABLE),
    _mode("inputs", "open", watched=True),
    _mode("followed", "open", watched=True),
    _mode("names", "closed", Code.UPSTREAM_UNREACHABLE),
    _mode("upstream", "closed", Code.UPSTREAM_UNREACHABLE, Code.UPSTREAM_TIMEOUT, Code.UPSTREAM_PROTOCOL),
    _mode("certificates", "closed", Code.UPSTREAM_UNTRUSTED),
    _mode("workers", "closed", watched=True),
    _mode("operators", "bounded"),
    _mode("processor", "closed", Code.OVERLOADED),
    _mode("clock", "bounded", Code.SPEND_CAP_REACHED),
)
"""In the order of a call's steps, then what stands beside them. `watched`: its episodes are on record
(`control.degraded`)."""
