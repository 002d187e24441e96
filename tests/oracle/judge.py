"""What the origins saw, what the agents were told and what the ledger says, held against each other.

`judge` returns every difference in words; the empty list is the proof. An origin's note opens the intent's commitment
only if the head rebuilt from what that origin *parsed*, in canonical form, and the body it read are the bytes that the
proxy committed to before it sent them.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from ledger import commitment
from tests.oracle.agents import Answer
from tests.oracle.origins import Arrival

type Record = dict[str, Any]
_REFUSALS = ("call.denied", "call.rejected")


@dataclass
class Evidence:
    """Of one run."""

    key: bytes
    """The tenant's commitment key."""
    secret: bytes
    tokens: tuple[bytes, ...]
    arrivals: dict[str, list[Arrival]]
    """By host."""
    answers: list[Answer]
    records: list[Record]
    joining: frozenset[str] = frozenset()
    """Hosts whose server joins the fields of one name before anybody can see them."""
    omit_empty: frozenset[str] = frozenset()
    """Hosts whose server drops fields without a value before anybody can see them."""
    sent_order: dict[bytes, tuple[tuple[bytes, bytes], ...]] = field(default_factory=dict)
    """The fields of each sound request as thrown: only to set apart again what an origin has joined (`a, b`),
    and to put back what such a server dropped. What is left has to open the commitment."""


@dataclass
class Row:
    """One origin's line of the table."""

    arrived: int = 0
    allowed: int = 0
    declined: Counter[int] = field(default_factory=Counter)
    """Let out, and refused by the origin itself, by its status."""
    unknown: int = 0
    """Let out, and the agent left before the answer: it may or may not have arrived."""
    refused: Counter[str] = field(default_factory=Counter)
    differences: int = 0


@dataclass
class Verdict:
    differences: list[str] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))

    def differs(self, host: str, what: str) -> None:
        self.rows[host].differences += 1
        self.differences.append(f"{host}: {what}")


def parsed_digest(host: str, arrival: Arrival, evidence: Evidence) -> bytes:
    """SHA-256 of what must have been sent for the origin to have parsed this."""
    public = [pair for pair in arrival.fields if pair != (b"authorization", b"Bearer " + evidence.secret)]
    if host in evidence.joining:
        public = _set_apart(host, public, arrival, evidence)
    return _digest(arrival, public)


def _digest(arrival: Arrival, fields: list[tuple[bytes, bytes]]) -> bytes:
    head = arrival.method + b" " + arrival.target + b" HTTP/1.1\r\n"
    head += b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n"
    return hashlib.sha256(head + arrival.body).digest()


def _set_apart(
    host: str, public: list[tuple[bytes, bytes]], arrival: Arrival, evidence: Evidence
) -> list[tuple[bytes, bytes]]:
    """The fields as they were before the origin joined those of one name, in the order in which they were thrown.

    A joined value is taken apart only into exactly the values that were thrown; anything else stays as it was seen.
    """
    number = next(iter(arrival.values(b"x-oracle-id")), b"")
    thrown = evidence.sent_order.get(number, ())
    values: dict[bytes, list[bytes]] = defaultdict(list)
    for name, value in thrown:
        values[name].append(value)
    apart: list[tuple[bytes, bytes]] = []
    left = dict(public)
    done: set[bytes] = set()
    ends = [pair for pair in public if pair[0] == b"content-length"]
    apart += [pair for pair in public if pair[0] == b"host"]
    for name, value in thrown:
        if name in {b"host", b"content-length"}:
            continue
        many = values[name]
        if name not in left:
            if host in evidence.omit_empty and not any(many):
                apart.append((name, value))
            continue
        joined = {b", ".join(many), b", ".join(one for one in many if one)}
        if len(many) > 1 and left[name] in joined:
            apart.append((name, value))
        elif name not in done:
            apart.append((name, left[name]))
        done.add(name)
    known = {name for name, _ in apart} | {b"content-length"}
    apart += [pair for pair in public if pair[0] not in known]
    return apart + ends


def judge(evidence: Evidence) -> Verdict:
    """Every difference."""
    verdict = Verdict()
    intents = [record for record in evidence.records if record["type"] == "call.intent"]
    outcomes = {record["intent"]: record for record in evidence.records if record["type"] == "call.outcome"}
    refusals = {record["call"]: record for record in evidence.records if record["type"] in _REFUSALS}
    left = _arrivals_against_intents(evidence, intents, verdict)
    for intent in left.values():
        _not_arrived(intent, outcomes.get(intent["seq"]), verdict)
    for intent in intents:
        verdict.rows[intent["op"]["host"]].allowed += 1
        if intent["seq"] not in outcomes:
            verdict.differs(intent["op"]["host"], f"intent {intent['seq']} has no outcome")
    if any(record["type"] == "reject.summary" for record in evidence.records):
        verdict.differs("-", "refusals were counted, not recorded one by one: nothing can be said of them")
    _answers_against_ledger(evidence, intents, outcomes, refusals, verdict)
    return verdict


def _arrivals_against_intents(evidence: Evidence, intents: list[Record], verdict: Verdict) -> dict[int, Record]:
    """The intents to which no arrival belongs, by number."""
    free: dict[tuple[str, bytes, int], dict[int, Record]] = defaultdict(dict)
    for intent in intents:
        operation = intent["op"]
        free[operation["host"], operation["method"].encode(), intent["req"]["len"]][intent["seq"]] = intent
    for host, arrivals in evidence.arrivals.items():
        for arrival in arrivals:
            verdict.rows[host].arrived += 1
            _no_stranger_and_no_token(host, arrival, evidence, verdict)
            candidates = free[host, arrival.method, len(arrival.body)]
            found = _opened(host, arrival, candidates, evidence)
            if found is None:
                verdict.differs(host, f"arrived, and no intent's commitment opens to it: {arrival}")
            else:
                del candidates[found]
    return {seq: intent for bucket in free.values() for seq, intent in bucket.items()}


def _opened(host: str, arrival: Arrival, candidates: dict[int, Record], evidence: Evidence) -> int | None:
    digest = parsed_digest(host, arrival, evidence)
    for seq, intent in candidates.items():
        call = intent["call"]
        if intent["fields"]["target"] != commitment(evidence.key, call, "target", arrival.target):
            continue
        if intent["req"]["commit"] == commitment(evidence.key, call, "req", digest):
            return seq
    return None


def _no_stranger_and_no_token(host: str, arrival: Arrival, evidence: Evidence, verdict: Verdict) -> None:
    if len(arrival.values(b"x-oracle-id")) != 1:
        verdict.differs(host, f"a request that nobody threw: {arrival}")
    if arrival.values(b"authorization") != [b"Bearer " + evidence.secret]:
        verdict.differs(host, f"not the secret alone: {arrival.values(b'authorization')}")
    everything = b"\n".join(name + value for name, value in arrival.fields) + arrival.target + arrival.body
    if any(token in everything for token in evidence.tokens) or arrival.values(b"proxy-authorization"):
        verdict.differs(host, "an agent's credential arrived")


def _not_arrived(intent: Record, outcome: Record | None, verdict: Verdict) -> None:
    host = intent["op"]["host"]
    result = {} if outcome is None else outcome["result"]
    if result.get("status") == "confirmed" and result["http"] >= 400:
        verdict.rows[host].declined[result["http"]] += 1
    elif result.get("status") == "aborted" and result.get("sent") is False:
        verdict.rows[host].unknown += 1  # its agent had left when the intent became durable: nothing was sent
    elif result.get("status") in {"aborted", "indeterminate"} and result.get("err") == "the agent went away":
        verdict.rows[host].unknown += 1
    else:
        verdict.differs(host, f"intent {intent['seq']} ({intent['op']['method']}) did not arrive: {result}")


def _answers_against_ledger(
    evidence: Evidence,
    intents: list[Record],
    outcomes: dict[int, Record],
    refusals: dict[str, Record],
    verdict: Verdict,
) -> None:
    by_call: dict[str, list[Record]] = defaultdict(list)
    for intent in intents:
        by_call[intent["call"]].append(intent)
    ids = {
        host: Counter(number for arrival in seen for number in arrival.values(b"x-oracle-id"))
        for host, seen in evidence.arrivals.items()
    }
    for answer in evidence.answers:
        call = answer.call or "-"
        if answer.code is not None:
            verdict.rows[answer.host].refused[answer.code] += 1
            refusal = refusals.get(call)
            codes = [] if refusal is None else _codes(refusal)
            if answer.code not in codes:
                verdict.differs(answer.host, f"refused with {answer.code}, recorded as {codes}: {answer}")
            if call in by_call or (answer.id is not None and ids[answer.host][answer.id]):
                verdict.differs(answer.host, f"refused, and it left all the same: {answer}")
            continue
        results = [outcomes[intent["seq"]]["result"] for intent in by_call[call] if intent["seq"] in outcomes]
        if not results or (results[-1]["status"], results[-1]["http"]) != ("confirmed", answer.status):
            verdict.differs(answer.host, f"answered {answer}, the ledger says {results}")
        if answer.id is not None and answer.status == 200 and ids[answer.host][answer.id] != 1:
            verdict.differs(answer.host, f"answered, and arrived {ids[answer.host][answer.id]} times: {answer}")


def _codes(refusal: Record) -> list[str]:
    reasons = [refusal["reason"]] if refusal["type"] == "call.rejected" else refusal["decision"]["reasons"]
    return [reason["code"] for reason in reasons]
