"""SIGTERM under load: what was let out is answered whole, what was not never leaves, and the exit code is 0."""

import re
import signal

from tests.campaigns.judges import (
    Book,
    every_arrival_has_its_own_intent,
    every_intent_is_closed_before_the_next_start_serves,
    what_agents_were_told_is_what_is_written,
)
from tests.campaigns.world import campaign, what_only_the_state_knows


def test_a_drain_ends_every_call_that_was_let_out() -> None:
    with campaign(cap=10_000) as town:
        call = town.long_call()
        town.wait_for_answers(50)
        assert town.product.stop(signal.SIGTERM) == 0
        arrived = [target for target, _, _ in town.witness.arrived]
        assert call.whole()
        town.load.finish()
        assert [target for target, _, _ in town.witness.arrived] == arrived, "a call left after the end"
        records = town.product.records()
        key, _ = what_only_the_state_knows(town.product)
        said = re.search(
            r"stopped: (\d+) calls finished, (\d+) were cut", town.product.log.read_text().splitlines()[-1]
        )
        town.product.start()  # the world ends with a product that runs
    book = Book.of(records)
    matched = every_arrival_has_its_own_intent(town.witness, book, key)
    assert every_intent_is_closed_before_the_next_start_serves(records) == 0
    what_agents_were_told_is_what_is_written(town.load.told, matched, book)
    whole = {told.target for told in town.load.told if told.status == 200} | {"/busy/long"}
    assert set(arrived) == whole, "a call was let out and its agent never had its whole answer"
    assert {outcome["result"]["status"] for outcome in book.outcomes.values()} == {"confirmed"}
    assert said is not None
    assert int(said[1]) >= 1
    assert int(said[2]) == 0
    assert town.load.unasked == []


def test_a_drain_that_takes_too_long_cuts_records_and_exits_cleanly() -> None:
    with campaign(cap=10_000, options=("--drain", "0.3")) as town:
        call = town.long_call()
        assert town.product.stop(signal.SIGTERM) == 0
        assert not call.whole()
        town.load.finish()
        book = Book.of(town.product.records())
        cut = [o for o in book.outcomes.values() if o["result"]["status"] != "confirmed"]
        # Under load others may be in flight when the patience is over; what is cut is told so.
        assert {(o["result"]["status"], o["result"]["code"]) for o in cut} == {("aborted", "draining")}
        town.product.start()
