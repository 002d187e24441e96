"""The operations on kept decision inputs, done to a state that this process holds."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from control.input_views import InputsErased, InputsPage, InputsRead, InputsShown, InputsWanted
from control.inputs import Opened, Selection
from control.inputs.rows import moment_of
from control.operations import Refused, Unavailable, WrongUse
from control.state import StateUnavailable
from control.stores.sqlite import StoreUnavailable
from credentials.actor import Actor
from ledger import LedgerRefused, commitment, find_call

if TYPE_CHECKING:
    from control.state import State

PAGE: Final = 500
PAGE_BYTES: Final = 4 * 1024 * 1024
"""One more input may come on top; a page stays far below what the operators' socket answers."""
_PLACE: Final = re.compile(r"(-?[0-9]{1,18}):([0-9]{1,18})", re.ASCII)
_DECIDED: Final = frozenset({"call.intent", "call.denied"})


class LocalInputs:
    """`InputOperations` on a state in this process, as done by one actor."""

    def __init__(self, state: "State", actor: Actor) -> None:
        self._state = state
        self._actor = actor

    def page(self, wanted: InputsWanted, place: str) -> InputsPage:
        """See `InputOperations.page`."""
        after = _PLACE.fullmatch(place or "-1:0")
        if after is None:
            raise WrongUse(f"{place!r} is no place that a page gave")
        with _explained():
            calls, further = self._state.inputs.page(
                _selection(wanted), (int(after[1]), int(after[2])), at_most=PAGE, bytes_at_most=PAGE_BYTES
            )
        return InputsPage(
            tuple(_read(opened) for opened in calls), None if further is None else f"{further[0]}:{further[1]}"
        )

    def show(self, call: str) -> InputsShown:
        """See `InputOperations.show`."""
        with _explained():
            opened = self._state.inputs.find(call)
        if opened is None:
            raise Refused(
                f"no inputs of a call {call} are kept", "They may be older than the policy keeps, or never were."
            )
        with _explained():
            records = [r for r in find_call(self._state.directory / "ledger", call) if r.type in _DECIDED]
            if not records:
                return InputsShown(_read(opened), None, None)
            decision = records[0].body["decision"]
            recorded = decision.get("inputs") if isinstance(decision, dict) else None
            key = self._state.commitment_key(records[0].tenant)
        fits = None
        if opened.inputs is not None:
            fits = recorded == commitment(key, call, "inputs", opened.inputs)
        return InputsShown(_read(opened), records[0].seq, fits)

    def erase(self, wanted: InputsWanted, reason: str) -> InputsErased:
        """See `InputOperations.erase`."""
        if (wanted.call, wanted.account, wanted.before) == (None, None, None):
            raise WrongUse("what is to be erased has no name", "Name a call, an account, or a date before which.")
        if wanted.account is not None and wanted.tenant is None:
            raise WrongUse("an account is one of a tenant", "Name it: --tenant T")
        chosen = _selection(wanted)
        with _explained():
            count = self._state.inputs.count(chosen)
            if count == 0:
                return InputsErased(0, 0)
            before = None if chosen.before is None else chosen.before.isoformat(timespec="microseconds")
            named = {"call": wanted.call, "account": wanted.account, "before": before}
            detail = {name: value for name, value in named.items() if value is not None}
            # On record first: what was erased without a trace could never be told from what was lost.
            record = self._state.record_act(
                self._actor, "inputs.erase", {**detail, "reason": reason, "calls": str(count)}, wanted.tenant or "-"
            )
            return InputsErased(self._state.inputs.erase(chosen), record.seq)


def _selection(wanted: InputsWanted) -> Selection:
    since, before = wanted.since, wanted.before
    return Selection(
        wanted.call,
        wanted.tenant,
        wanted.account,
        None if since is None else moment_of(since),
        None if before is None else moment_of(before),
    )


def _read(opened: Opened) -> InputsRead:
    row = opened.row
    inputs = None if opened.inputs is None else opened.inputs.decode("ascii")
    return InputsRead(
        row.call, row.at, row.tenant, row.account, row.policy, row.code, row.rule, inputs, row.sealed is None
    )


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as error:
        raise Unavailable(f"the kept inputs cannot be used: {error}", "Look at the disk, then restart.") from error
    except StateUnavailable as error:
        raise Unavailable(error.message, error.fix) from error
    except LedgerRefused as error:
        raise Unavailable(str(error), "exeat ledger verify says what is wrong.") from error
