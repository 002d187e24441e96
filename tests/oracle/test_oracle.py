"""Eight different HTTP servers behind the real product: what each saw is what the ledger says, request by request.

`make campaign ARGS="tests/oracle -s"` throws thousands and prints the table; the short form is part of every run. The
seed is printed; `EXEAT_ORACLE_SEED` repeats it.
"""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.state import State
from tests.oracle.agents import Answer, Lane
from tests.oracle.generator import Generator, Throw
from tests.oracle.judge import Evidence, Verdict, judge
from tests.oracle.origins import ORIGINS, Arrival, Running, running
from tests.worlds.authority import Authority
from tests.worlds.product import Product
from tests.worlds.product import running as product_running

SECRET = b"oracle-secret-81c4"
SEED = os.environ.get("EXEAT_ORACLE_SEED", "")
LANES = 2
OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
_HERE = tuple(origin for origin in ORIGINS if origin.here)
_MISSING = tuple(origin.name for origin in ORIGINS if not origin.here)


def policy_for(origins: list[Running], lanes: int) -> str:
    """One connection an origin, and accounts in numbers: each refusal is to have a record of its own."""
    lines = ["exeat: 1", "tenant: acme", "credentials: {ttl: 1h, max_ttl: 2h}", "connections:"]
    lines += [
        f"  {one.origin.name}: {{host: {one.origin.host}, dial: '127.0.0.1:{one.port}', ca: ca.pem, secret: s}}"
        for one in origins
    ]
    lines.append("accounts:")
    for one in origins:
        for lane in range(lanes):
            lines += [
                f"  {one.origin.name}-{lane}:",
                f"    owners: {OWNERS}",
                "    rules:",
                f"      - {{id: all, allow: {{connection: {one.origin.name}, path: /**}}}}",
                f"      - {{id: no, deny: {{connection: {one.origin.name}, path: /denied/**}}}}",
            ]
    return "\n".join(lines) + "\n"


def order_of(throw: Throw) -> dict[bytes, tuple[tuple[bytes, bytes], ...]]:
    """The fields of each request of a throw in their order, by its number."""
    orders = {}
    for part in b"".join(throw.pieces).split(b" HTTP/1.1\r\n")[1:]:
        pairs = [line.partition(b":") for line in part.partition(b"\r\n\r\n")[0].split(b"\r\n")]
        fields = tuple((name.lower(), value.strip(b" \t")) for name, _, value in pairs)
        number = dict(fields).get(b"x-oracle-id")
        if number is not None:
            orders[number] = fields
    return orders


def throw_everything(
    product: Product, origins: list[Running], requests: int, seed: str
) -> tuple[list[Lane], list[Throw], tuple[bytes, ...]]:
    lanes, plans, tokens = [], [], []
    door = product.door()
    for one in origins:
        for number in range(LANES):
            token = product.cli("token", "issue", f"{one.origin.name}-{number}").ok().out.strip()
            tokens.append(token.encode())
            generator = Generator(f"{seed}/{one.origin.name}/{number}", one.origin.host, f"{one.origin.name}-{number}")
            plans.append(generator.throws(requests // LANES))
            lanes.append(Lane(door, token, str(product.state / "keys" / "ca-cert.pem"), one.origin.host))

    async def all_lanes() -> None:
        await asyncio.gather(*(lane.run(plan) for lane, plan in zip(lanes, plans, strict=True)))

    asyncio.run(all_lanes())
    return lanes, [throw for plan in plans for throw in plan], tuple(tokens)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # Readable by a server that gives up root before it writes down what it saw.
    folder = Path(tempfile.mkdtemp(prefix="exeat-o-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def gather_evidence(requests: int, seed: str) -> tuple[Evidence, list[Throw], dict[str, str]]:
    """Everything has been thrown, and everybody has been asked. `requests` for each origin."""
    authority = Authority()
    with _folder() as folder, contextlib.ExitStack() as stack:
        origins = [stack.enter_context(running(origin, folder / origin.name, authority)) for origin in _HERE]
        with product_running(
            policy=policy_for(origins, LANES), files={"ca.pem": authority.pem}, secrets={"s": SECRET}
        ) as product:
            lanes, throws, tokens = throw_everything(product, origins, requests, seed)
            assert product.stop() == 0
            records = product.records()
            with State.open(product.state, create=False) as state:
                key = state.commitment_key("acme")
        arrivals = {one.origin.host: one.arrivals() for one in origins}
        versions = {one.origin.host: one.origin.version_text() for one in origins}
    orders = {number: fields for throw in throws for number, fields in order_of(throw).items()}
    answers = [answer for lane in lanes for answer in lane.answers]
    unanswered = [throw for lane in lanes for throw in lane.unanswered]
    assert not unanswered, f"no answer to {unanswered[:3]}"
    joining = frozenset(one.origin.host for one in origins if one.origin.joins)
    omit_empty = frozenset(one.origin.host for one in origins if one.origin.omits_empty)
    return Evidence(key, SECRET, tokens, arrivals, answers, records, joining, omit_empty, orders), throws, versions


def print_table(verdict: Verdict, versions: dict[str, str], throws: list[Throw], seed: str) -> None:
    print(f"\nseed {seed}: {sum(len(throw.ids) for throw in throws)} requests thrown")
    print(f"{'origin':16} {'version':44} arrived allowed declined unknown refused differences")
    for host, row in verdict.rows.items():
        declined = sum(row.declined.values())
        print(
            f"{host:16} {versions.get(host, '-'):44} {row.arrived:7} {row.allowed:7} {declined:8} {row.unknown:7}"
            f" {row.refused.total():7} {row.differences:11}   {dict(row.refused)} {dict(row.declined) or ''}"
        )
    print("\n".join(verdict.differences[:20]))


def assert_no_difference(requests: int, seed: str) -> Evidence:
    print(f"EXEAT_ORACLE_SEED={seed}")
    evidence, throws, versions = gather_evidence(requests, seed)
    verdict = judge(evidence)
    print_table(verdict, versions, throws, seed)
    assert verdict.differences == []
    for host in evidence.arrivals:
        row = verdict.rows[host]
        assert row.arrived > requests // 4, f"{host}: the sound requests do arrive"
        assert row.refused, f"{host}: the hostile ones are refused"
    return evidence


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Of the short form."""
    return assert_no_difference(60, SEED or "short")


def test_what_each_origin_saw_is_what_the_ledger_says(evidence: Evidence) -> None:
    assert len(evidence.arrivals) == len(_HERE) >= 3


@pytest.mark.wants("the servers of .ci/install-origins")
def test_all_eight_origins_are_here() -> None:
    if _MISSING:
        pytest.skip(f"not on this machine: {', '.join(_MISSING)} (sh .ci/install-origins)")
    assert len(_HERE) == 8


@pytest.mark.campaign
def test_thousands_of_requests_without_a_difference() -> None:
    seed = SEED or os.urandom(4).hex()
    evidence = assert_no_difference(5_600 // len(_HERE), seed)
    assert sum(map(len, evidence.arrivals.values())) > 2_000


def _with_arrivals(evidence: Evidence, change: object) -> Evidence:
    host = next(iter(evidence.arrivals))
    assert callable(change)
    return dataclasses.replace(evidence, arrivals={**evidence.arrivals, host: change(evidence.arrivals[host])})


def _first(**what: object) -> object:
    return lambda seen: [dataclasses.replace(seen[0], **what), *seen[1:]]


def _another_field(seen: list[Arrival]) -> list[Arrival]:
    one = seen[0]
    return [dataclasses.replace(one, fields=(*one.fields[:-1], (b"x-new", b"1"), one.fields[-1])), *seen[1:]]


CHANGES = {
    "another target": _first(target=b"/other"),
    "another method": _first(method=b"BREW"),
    "another body": _first(body=b"other"),
    "another field": _another_field,
    "one request more": lambda seen: [seen[0], *seen],
    "one request less": lambda seen: seen[1:],
    "an order of fields": lambda seen: [dataclasses.replace(seen[0], fields=seen[0].fields[::-1]), *seen[1:]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_judge_sees_what_an_origin_should_not_have_seen(evidence: Evidence, change: str) -> None:
    assert judge(_with_arrivals(evidence, CHANGES[change])).differences


def test_the_judge_sees_a_refusal_that_is_not_recorded(evidence: Evidence) -> None:
    refused = next(answer for answer in evidence.answers if answer.code is not None)
    records = [record for record in evidence.records if record.get("call") != refused.call]
    assert judge(dataclasses.replace(evidence, records=records)).differences


def test_the_judge_sees_a_refused_request_that_left_all_the_same(evidence: Evidence) -> None:
    host, seen = next((host, seen) for host, seen in evidence.arrivals.items() if seen)
    lie = Answer(host, "sound", seen[0].values(b"x-oracle-id")[0], 400, "c_none", "malformed_request")
    assert judge(dataclasses.replace(evidence, answers=[*evidence.answers, lie])).differences


def test_the_judge_sees_a_secret_beside_another(evidence: Evidence) -> None:
    twice = _with_arrivals(evidence, lambda seen: [
        dataclasses.replace(seen[0], fields=(*seen[0].fields, (b"authorization", b"Bearer evil"))), *seen[1:]
    ])  # fmt: skip
    assert any("not the secret alone" in difference for difference in judge(twice).differences)
