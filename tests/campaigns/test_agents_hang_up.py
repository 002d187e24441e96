"""Agents that leave in the middle of their calls: each call is settled, and nothing that it held is kept."""

from tests.campaigns.judges import (
    Book,
    every_arrival_has_its_own_intent,
    every_intent_is_closed_before_the_next_start_serves,
    spending_survived,
    what_agents_were_told_is_what_is_written,
)
from tests.campaigns.world import BUSY, PRICE_MICROS, campaign, what_only_the_state_knows


def test_agents_that_hang_up_leak_no_lease_and_what_they_sent_is_paid() -> None:
    with campaign(cap=10_000, hang_up_every=3) as town:
        town.wait_for_answers(200)
        town.comes_to_rest()
        calls = [town.long_call() for _ in range(BUSY)]  # as many at once as the account may: no lease is missing
        assert all(call.whole() for call in calls)
        assert town.product.stop() == 0
        records = town.product.records()
        key, spent = what_only_the_state_knows(town.product)
        town.product.start()
    book = Book.of(records)
    matched = every_arrival_has_its_own_intent(town.witness, book, key)
    assert every_intent_is_closed_before_the_next_start_serves(records) == 0
    what_agents_were_told_is_what_is_written(town.load.told, matched, book)
    left = [o for o in book.outcomes.values() if o["result"]["status"] in ("aborted", "indeterminate")]
    assert len(left) > 10, "nobody hung up while a call was in flight"
    for outcome in left:
        assert outcome["result"]["http"] is None
        assert outcome["cost"]["micro"] == (PRICE_MICROS if outcome["result"]["sent"] else 0)
    counted = spending_survived(records, spent)
    assert counted["counted"] == counted["settled"], "after a clean stop the counters are exact"
