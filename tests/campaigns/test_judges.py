"""A campaign that finds nothing is worth as much as its judges: each is shown a ledger with its fault."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ledger import commitment
from tests.campaigns.judges import (
    Book,
    every_arrival_has_its_own_intent,
    every_intent_is_closed_before_the_next_start_serves,
    the_cap_held,
    what_agents_were_told_is_what_is_written,
)
from tests.campaigns.load import Told
from tests.campaigns.world import SECRET, Witness

KEY = b"k" * 32


def _intent(seq: int, target: str, boot: str = "b1") -> dict[str, Any]:
    call = f"c_{seq}"
    bound = commitment(KEY, call, "target", target.encode())
    stamp = datetime.fromtimestamp(1000 + seq, UTC).isoformat()
    return {"type": "call.intent", "seq": seq, "call": call, "boot": boot, "ts": stamp, "fields": {"target": bound}}


def _outcome(seq: int, intent: int, status: str = "confirmed", boot: str = "b1") -> dict[str, Any]:
    result = {"status": status, "http": 200}
    return {"type": "call.outcome", "seq": seq, "intent": intent, "boot": boot, "result": result, "cost": None}


def test_the_judges_notice_what_they_are_there_for() -> None:
    records = [_intent(1, "/busy/1"), _outcome(2, 1)]
    book, bearer = Book.of(records), f"Bearer {SECRET.decode()}"
    assert every_arrival_has_its_own_intent(Witness([("/busy/1", 1002.0, bearer)]), book, KEY)
    for arrived in (
        [("/busy/2", 1002.0, bearer)],  # nothing was written
        [("/busy/1", 1000.5, bearer)],  # written after it had arrived
        [("/busy/1", 1002.0, bearer)] * 2,  # written once, arrived twice
    ):
        with pytest.raises(AssertionError, match="without an intent"):
            every_arrival_has_its_own_intent(Witness(arrived), book, KEY)
    with pytest.raises(AssertionError, match="open at the end"):
        every_intent_is_closed_before_the_next_start_serves(records[:1])
    with pytest.raises(AssertionError, match="of an earlier start were open"):
        every_intent_is_closed_before_the_next_start_serves([*records[:1], _intent(2, "/busy/2", "b2")])
    with pytest.raises(AssertionError, match="two outcomes"):
        Book.of([*records, _outcome(3, 1)])
    unconfirmed = Book.of([records[0], _outcome(2, 1, "indeterminate", "b2")])
    with pytest.raises(AssertionError, match="/busy/1"):
        what_agents_were_told_is_what_is_written([Told("/busy/1", 200)], {"/busy/1": records[0]}, unconfirmed)
    with pytest.raises(AssertionError, match="got through"):
        the_cap_held(
            5,
            Witness(),
            [Told("/capped/1", 403, "spend_cap_reached", "capped"), *[Told("/capped/2", 200, None, "capped")] * 2],
        )
