"""`kill -9` under load, again and again: never a call that left without its intent, never an intent left open.

Three witnesses are compared that do not know of each other: what the origin saw, what the agents were told, and what
the ledger says once it has been verified.
"""

import os
import random

import pytest

from tests.campaigns.judges import (
    Book,
    every_arrival_has_its_own_intent,
    every_intent_is_closed_before_the_next_start_serves,
    spending_survived,
    the_cap_held,
    what_agents_were_told_is_what_is_written,
)
from tests.campaigns.world import campaign, what_only_the_state_knows

EARLY_EVERY = 5
"""Every so manieth kill comes while the product is starting, wherever that may be."""


def run_campaign(kills: int, seed: int) -> str:
    """The whole of it; what was found, for people."""
    how = random.Random(seed)
    print(f"seed {seed}")
    cap = 2 * kills
    with campaign(cap) as town:
        done = 0
        while done < kills:
            if done % EARLY_EVERY == EARLY_EVERY - 1:
                town.kill_while_it_starts(how)
                done += 1
            else:
                town.kill(how)
            done += 1
            town.product.start()
        town.wait_for_answers(30)
        town.comes_to_rest()
        product = town.product
        assert product.stop() == 0
        verified = product.cli(
            "ledger", "verify", str(product.state / "ledger"), "--trust", str(product.state / "trust.policy")
        )
        assert verified.code == 0, verified.out + verified.err
        records = product.records()
        key, spent = what_only_the_state_knows(product)
    book = Book.of(records)
    closed = every_intent_is_closed_before_the_next_start_serves(records)
    matched = every_arrival_has_its_own_intent(town.witness, book, key)
    confirmed = what_agents_were_told_is_what_is_written(town.load.told, matched, book)
    counted = spending_survived(records, spent)
    capped = the_cap_held(cap, town.witness, town.load.told)
    starts = sum(record["type"] == "ledger.start" for record in records)
    return (
        f"{done} kills ({town.interrupted_starts} of them during a start), {starts} starts; "
        f"{len(town.load.told)} requests sent, {len(town.witness.arrived)} reached the origin, all with an intent of "
        f"their own; {len(book.intents)} intents, {closed} of them closed by recovery, none open; "
        f"{confirmed} answers 200, all confirmed; capped account: {capped} of {cap} calls reached the origin; "
        f"spent {counted['settled']} micros settled, {counted['counted']} counted; {len(records)} records verified"
    )


def test_a_few_kills_under_load_leave_no_call_unrecorded() -> None:
    print(run_campaign(kills=5, seed=int.from_bytes(os.urandom(4))))


@pytest.mark.campaign
def test_fifty_kills_under_load_leave_no_call_unrecorded() -> None:
    print(run_campaign(kills=50, seed=int.from_bytes(os.urandom(4))))
