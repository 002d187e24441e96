"""Every refused vector, said to a real gate at every door: the expected code, one record, nothing at any origin."""

import asyncio
import json
import ssl
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.doors import DOORS, HOST, Door, Visitor, square
from tests.worlds.origin import Peer, Request

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[1] / "proxy" / "http" / "vectors"
EARLIER = frozenset({"malformed_request", "ambiguous_target", "protocol_refused", "headers_too_large"})
"""A host or a path that breaks even the request's grammar is refused before it is looked at as a host or a path."""


@dataclass(frozen=True)
class Case:
    """One vector as bytes to say, and the codes that refuse it."""

    name: str
    data: bytes
    codes: frozenset[str]


def cases_of(file: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{file}.json").read_text(encoding="ascii"))["cases"]


def requests(file: str, *, door: bool) -> list[Case]:
    """The refused vectors that are whole requests."""
    return [
        Case(case["name"], (case["bytes"] + case.get("repeat", "") * case.get("times", 1)).encode("latin-1"), codes)
        for case in cases_of(file)
        if case["code"] is not None
        and (codes := frozenset({case["code"]}))
        and case.get("door", False) <= door
        and not (door and case["name"] == "CONNECT inside a tunnel")
    ]


def paths() -> list[Case]:
    return [
        _get(case["name"], case["path"], EARLIER)
        for case in cases_of("paths")
        if case["value"] is None and case["path"].startswith("/") and "?" not in case["path"]
    ]


def queries() -> list[Case]:
    return [
        _get(case["name"], f"/?{case['query']}", frozenset({case["code"]}) | {"malformed_request", "protocol_refused"})
        for case in cases_of("queries")
        if case["code"] is not None
    ]


def _get(name: str, target: str, codes: frozenset[str]) -> Case:
    return Case(name, f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode("latin-1"), codes)


def inside(file: str) -> list[Case]:
    """Hosts and authorities in the Host field."""
    key = file.removesuffix("s").replace("authoritie", "authority")
    codes = EARLIER | {"destination_mismatch"}  # white space around a field's value is none of it
    return [
        Case(case["name"], f"GET / HTTP/1.1\r\nHost: {case[key]}\r\n\r\n".encode("latin-1"), codes)
        for case in cases_of(file)
        if case["value"] is None
    ]


def destinations(door: Door) -> list[Case]:
    """Inside a tunnel, or without one, as the vector says; a path without a tunnel is the base-URL door's."""
    return [
        Case(
            case["name"],
            f"GET {case['target']} HTTP/1.1\r\nHost: {case['host']}\r\n\r\n".encode("latin-1"),
            EARLIER | {case["code"]},
        )
        for case in cases_of("destinations")
        if case["code"] is not None
        and (case["tunnel"] is not None) == (door.name == "tunnel")
        and (door.name != "absolute" or case["target"][:1] != "/")
        and door.name != "base-url"
    ]


FILES = {
    **{
        file: lambda door, file=file: requests(file, door=door.connect)
        for file in ("request_line", "framing", "headers", "upgrades", "door")
    },
    "paths": lambda door: paths(),
    "queries": lambda door: queries(),
    "hosts": lambda door: inside("hosts"),
    "authorities": lambda door: inside("authorities"),
    "destinations": destinations,
}
NOTHING_THERE = {("tunnel", "door"), ("base-url", "destinations")}
"""What a tunnel's inside knows nothing of, and what the base-URL door takes from the connection alone."""
EXECUTED = {*FILES, "responses"}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
async def test_a_refused_vector(tmp_path: Path, door: Door, file: str) -> None:
    wrong: list[str] = []
    answered: dict[str, tuple[str, str]] = {}
    async with square(tmp_path) as here:
        for case in FILES[file](door):
            agent = Visitor(here.gate, here.gate.world.token(), HOST)
            await door.arrive(agent)
            try:
                answer = await agent.say(door.dress(case.data, agent))
            except (TimeoutError, asyncio.IncompleteReadError) as error:
                wrong.append(f"{case.name}: no answer ({error!r})")
                continue
            finally:
                agent.writer.transport.abort()
            code = answer.code or f"status {answer.status}"
            if code not in case.codes:
                wrong.append(f"{case.name}: {code}, not {sorted(case.codes)}")
            answered[answer.headers.get("exeat-call", case.name)] = (case.name, code)
        records = await here.gate.records("call.denied", "call.rejected", "call.intent")
        assert here.bytes_at_origins == 0
    assert wrong == []
    assert answered or (door.name, file) in NOTHING_THERE
    recorded = Counter(record.body["call"] for record in records)
    assert recorded == dict.fromkeys(answered, 1), "one record each"
    for record in records:
        reason = record.body["reason"] if record.type == "call.rejected" else record.body["decision"]["reasons"][0]
        assert reason["code"] == answered[record.body["call"]][1], answered[record.body["call"]]


@pytest.mark.parametrize("file", ["hosts", "authorities"])
@pytest.mark.parametrize("form", ["connect", "absolute"])
async def test_a_refused_destination_at_the_door(tmp_path: Path, file: str, form: str) -> None:
    """As the target of a CONNECT, and in an absolute target; Host says the same."""
    key = file.removesuffix("s").replace("authoritie", "authority")
    wrong: list[str] = []
    async with square(tmp_path) as here:
        for case in cases_of(file):
            if case["value"] is not None:
                continue
            name, host = case["name"], case[key]
            agent = Visitor(here.gate, here.gate.world.token(), HOST)
            await agent.arrive()
            authority = f"{host}:443" if form == "connect" and file == "hosts" else host
            line = f"CONNECT {authority}" if form == "connect" else f"GET http://{authority}/"
            head = f"{line} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Basic {agent.authorization()}\r\n\r\n"
            answer = await agent.say(head.encode("latin-1"))
            if answer.code not in EARLIER:
                wrong.append(f"{name}: {answer.status} {answer.code}")
            agent.writer.transport.abort()
        records = await here.gate.records("call.denied", "call.rejected", "call.intent")
        assert here.bytes_at_origins == 0
    assert wrong == []
    assert len(records) == sum(case["value"] is None for case in cases_of(file))


async def test_an_answer_that_is_refused(tmp_path: Path) -> None:
    """What an origin may not say: nothing of it reaches the agent, and the call's outcome is one record."""
    cases = iter(case for case in cases_of("responses") if case["refused"])
    now: list[dict[str, Any]] = []

    async def script(_: Request, peer: Peer) -> None:
        case = now[-1]
        await peer.send((case["bytes"] + case.get("repeat", "") * case.get("times", 1)).encode("latin-1"))
        peer.abort() if case.get("eof") == "torn" else peer.close()

    wrong: list[str] = []
    async with square(tmp_path) as here:
        here.origins[0].script = script
        for case in cases:
            now.append(case)
            agent = Visitor(here.gate, here.gate.world.token(), HOST)
            await agent.arrive_in_a_tunnel()
            answer = await agent.say(f"{case['method']} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            # A stream's head goes on its way before its fault comes; then the stream never ends properly.
            head_is_gone = "transfer-encoding" in answer.headers and answer.status == 200
            if not head_is_gone and (answer.status, answer.code) != (502, "upstream_protocol"):
                wrong.append(f"{case['name']}: {answer.status} {answer.code}")
            if head_is_gone:
                try:
                    async for _ in agent.chunks():
                        pass
                    wrong.append(f"{case['name']}: ended properly")
                except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, ValueError):
                    pass
            agent.writer.transport.abort()
        intents = await here.gate.records("call.intent")
        outcomes = await here.gate.records("call.outcome")
    assert wrong == []
    assert len(now) > 90
    assert len(intents) == len(now)
    assert Counter(record.body["call"] for record in outcomes) == dict.fromkeys((r.body["call"] for r in intents), 1)
    assert {record.body["result"]["status"] for record in outcomes} <= {"indeterminate", "aborted"}
