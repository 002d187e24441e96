"""What is due of a call's cost, by how it ended."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.attempt import Result
from proxy.costs import Cost, cost_of
from rules.claims import LeaseClaim, SpendClaim

if TYPE_CHECKING:
    from rules.policy.compile import Connection

COST = Cost(250_000, "USD", ("acme/agent/USD/day/2026-11-20",), {"recipients": 3_000_000, "bytes_out": 9_000_000})
ALL = {"price": 250_000, "recipients": 3_000_000, "bytes_out": 9_000_000}
NONE = dict.fromkeys(ALL, 0)


@pytest.mark.parametrize(
    ("result", "due"),
    [
        (Result("failed", sent=False), NONE),
        (Result("aborted", sent=False), NONE),
        (Result("confirmed", sent=True, http=200), ALL),
        (Result("confirmed", sent=True, http=302), ALL),
        (Result("confirmed", sent=True, http=404), {**ALL, "recipients": 0}),
        (Result("confirmed", sent=True, http=500), ALL),
        (Result("indeterminate", sent=True, http=404), ALL),
        (Result("timeout", sent=True), ALL),
        (Result("aborted", sent=True, http=200), ALL),
    ],
)
def test_what_is_due(result: Result, due: dict[str, int]) -> None:
    assert COST.due(result) == due


def test_what_was_really_sent_is_what_counts_once_it_is_known() -> None:
    told = {"bytes_out": 4_000_000}
    assert COST.due(Result("confirmed", sent=True, http=404), told) == {**ALL, "recipients": 0, **told}
    assert COST.due(Result("indeterminate", sent=True), told) == ALL, "nobody knows, so it is all of it"


@given(
    st.sampled_from(["confirmed", "failed", "timeout", "aborted", "indeterminate"]),
    st.booleans(),
    st.none() | st.integers(100, 599),
)
def test_nothing_is_ever_due_beyond_what_was_set_aside(status: str, sent: bool, http: int | None) -> None:
    result = Result(status, sent=sent, http=http)
    due = COST.due(result)
    assert due.keys() == ALL.keys()
    assert all(0 <= due[meter] <= most for meter, most in ALL.items())
    assert sent or not any(due.values())
    assert not sent or due["price"] == ALL["price"]


def spend(meter: str, unit: str, amount: int, *key: str) -> SpendClaim:
    return SpendClaim(("acme", "agent", *key), "2026-11-20", 10**9, amount, unit, 0, meter)


def test_a_cost_is_a_legal_part_of_a_record() -> None:
    claims = (
        LeaseClaim(("acme", "agent", "concurrency"), 2),
        spend("calls", "calls", 1_000_000, "calls", "day"),
        spend("mcp.a/b.amount", "USD", 5_000_000, "mcp.a%2Fb.amount:USD", "day"),
    )
    cost = cost_of(claims, None)
    assert cost is not None
    content = cost.content()
    assert content == {
        "micro": 0,
        "cur": "XXX",
        "budget": ("acme/agent/calls/day/2026-11-20", "acme/agent/mcp.a%2Fb.amount:USD/day/2026-11-20"),
        "units": {"calls": 1_000_000, "mcp.a/b.amount": 5_000_000},
    }
    assert cost.content(dict.fromkeys(cost.most, 0))["units"] == {"calls": 0, "mcp.a/b.amount": 0}
    assert cost_of((), None) is None


def test_a_cost_of_the_same_claims_on_another_connection_is_another() -> None:
    """All calls without a limit have the same claims: none."""
    cheap, dear = (cast("Connection", SimpleNamespace(currency="USD", price_micros=price)) for price in (5, 7))
    for connection, micros in ((cheap, 5), (dear, 7), (cheap, 5)):
        cost = cost_of((), connection)
        assert cost is not None
        assert cost.micros == micros


def test_a_cost_is_made_once_for_the_same_claims() -> None:
    claims = (spend("price", "USD", 5, "USD", "day"),)
    cost = cost_of(claims, None)
    assert cost is not None
    assert cost_of(claims, None) is cost
    same = (spend("price", "USD", 5, "USD", "day"),)
    again = cost_of(same, None)
    assert again == cost
    assert again is not cost
    assert again is not None
    assert again.content() is again.content() is again.content(again.most)
    assert again.content({"price": 4})["micro"] == 4
    assert again.content()["micro"] == 5
