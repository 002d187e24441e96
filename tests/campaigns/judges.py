"""What origin, agents and ledger say about the same calls, compared. Each judge raises `AssertionError`."""

import bisect
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ledger import commitment
from tests.campaigns.load import Told
from tests.campaigns.world import CAPPED, SECRET, Witness

EXPECTED_REFUSALS = {(403, "spend_cap_reached"), (429, "concurrency_reached"), (503, "draining")}


@dataclass(frozen=True)
class Book:
    """The ledger's intents and outcomes."""

    intents: list[dict[str, Any]]
    outcomes: dict[int, dict[str, Any]]
    """By the intent's seq."""

    @classmethod
    def of(cls, records: list[dict[str, Any]]) -> "Book":
        outcomes = [record for record in records if record["type"] == "call.outcome"]
        by_intent = {record["intent"]: record for record in outcomes}
        assert len(by_intent) == len(outcomes), "an intent has two outcomes"
        return cls([record for record in records if record["type"] == "call.intent"], by_intent)


def every_intent_is_closed_before_the_next_start_serves(records: list[dict[str, Any]]) -> int:
    """The number of intents that recovery closed, each as indeterminate and at its maximum."""
    waiting: dict[int, dict[str, Any]] = {}
    closed = 0
    for record in records:
        if record["type"] == "call.intent":
            left = [seq for seq, intent in waiting.items() if intent["boot"] != record["boot"]]
            assert not left, f"intents {left} of an earlier start were open when record {record['seq']} was made"
            waiting[record["seq"]] = record
        elif record["type"] == "call.outcome":
            intent = waiting.pop(record["intent"])
            if intent["boot"] != record["boot"]:
                closed += 1
                assert record["result"]["status"] == "indeterminate"
                assert record["cost"] == intent["cost"]
    assert not waiting, f"open at the end: {sorted(waiting)}"
    return closed


def every_arrival_has_its_own_intent(witness: Witness, book: Book, key: bytes) -> dict[str, dict[str, Any]]:
    """The intent of each target that arrived: written before it did, and no intent serves for two arrivals."""
    free = list(book.intents)
    stamps = [datetime.fromisoformat(intent["ts"]).timestamp() for intent in free]
    used: set[int] = set()
    matched: dict[str, dict[str, Any]] = {}
    for target, at, authorization in witness.arrived:
        assert authorization == f"Bearer {SECRET.decode()}"
        # From the newest that is not later than the arrival backwards: the right one is among the first few.
        for index in range(bisect.bisect_right(stamps, at) - 1, -1, -1):
            intent = free[index]
            if index in used or intent["fields"]["target"] != commitment(
                key, intent["call"], "target", target.encode()
            ):
                continue
            used.add(index)
            matched[target] = intent
            break
        else:
            raise AssertionError(f"{target} reached the origin without an intent")
    return matched


def what_agents_were_told_is_what_is_written(told: list[Told], matched: dict[str, dict[str, Any]], book: Book) -> int:
    """An answer that was read whole has a durable outcome that says the same. The number of them."""
    confirmed = 0
    for one in told:
        if one.status is None or one.code is not None:
            continue
        outcome = book.outcomes[matched[one.target]["seq"]]
        assert (outcome["result"]["status"], outcome["result"]["http"]) == ("confirmed", one.status), one
        confirmed += 1
    refused = Counter((one.status, one.code) for one in told if one.code is not None)
    assert set(refused) <= EXPECTED_REFUSALS, refused
    return confirmed


def spending_survived(records: list[dict[str, Any]], counted: dict[str, int]) -> dict[str, int]:
    """What the budgets hold after the last start is at least what was settled, for each account."""
    settled: Counter[str] = Counter()
    for record in records:
        if record["type"] == "call.outcome" and record["cost"] is not None:
            for budget in record["cost"]["budget"]:
                settled[budget] += record["cost"]["micro"]
    assert set(settled) == set(counted)
    for budget, micros in settled.items():
        assert counted[budget] >= micros, f"{budget}: {micros} were settled, {counted[budget]} are counted"
    return {"settled": sum(settled.values()), "counted": sum(counted.values())}


def the_cap_held(cap: int, witness: Witness, told: list[Told]) -> int:
    """The capped account's calls at the origin: never more than the cap, over all starts together."""
    calls = [target for target, _, _ in witness.arrived if target.startswith("/capped/")]
    assert len(calls) <= cap
    codes = [one.code for one in told if one.account == "capped" and one.status is not None]
    first = codes.index("spend_cap_reached")
    # The others' last calls were let out before the cap was reached and may be answered after it.
    assert codes[first:].count(None) < CAPPED, "calls got through after the cap had been reached"
    return len(calls)
