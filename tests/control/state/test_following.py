"""A state's folds beside each other: what one cannot do is shown, and the others go on."""

import pytest

from control.degraded import sources_of
from control.state import State
from control.stores.sqlite import StoreUnavailable
from tests.ledger.conftest import activate, denied


def test_what_cannot_be_counted_is_degraded_and_the_rest_goes_on(state: State) -> None:
    why = sources_of(state)["followed"]
    database = state.following.caught_up()
    assert why() is None
    with database.transaction() as rows:
        rows.execute("ALTER TABLE calls RENAME TO away")
    state.ledger.submit(*activate()).result(10)
    state.ledger.submit(*denied("c_1")).result(10)
    state.following.caught_up("alerts/1", "spikes/1")
    assert why() == "spending: OperationalError"
    assert state.following.warnings() == ("the ledger is not followed: spending: OperationalError",)
    with pytest.raises(StoreUnavailable, match="spending cannot be counted now"):
        state.following.caught_up("spending/1")
    with database.transaction() as rows:
        rows.execute("ALTER TABLE away RENAME TO calls")
    (counted,) = state.following.caught_up("spending/1").query("SELECT calls FROM calls")
    assert (counted, why()) == ((1,), None)
