"""Rules with conditions on real traffic: the body is read before it is judged, and what was read is what leaves."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.config import GateConfig
from tests.worlds.authority import Authority
from tests.worlds.gate import running_gate, write_policy
from tests.worlds.origin import Origin
from tests.worlds.towns import SECRET, Town

pytestmark = pytest.mark.anyio

POLICY = """
exeat: 1
tenant: acme
timezone: Europe/Berlin
connections:
  stripe: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    rules:
      - id: small
        allow: {{connection: stripe, methods: [POST], path: /v1/refunds}}
        when: int(body.amount) <= 100
      - {{id: never, deny: {{connection: stripe}}, when: "has(body.reason) && body.reason == 'fraudulent'"}}
      - id: read
        allow: {{connection: stripe, path: "/v1/charges/{{id}}"}}
        when: path.id.startsWith('ch_')
      - {{id: up, allow: {{connection: stripe, path: /v1/files, body: {{stream: 64 MiB}}}}}}
"""
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PARTS = {"Content-Type": "multipart/form-data; boundary=b"}


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    authority = Authority()
    async with Origin(authority.issue("saas.test")) as origin:
        policy = write_policy(folder / "policy", POLICY.format(port=origin.port), {"ca.pem": authority.pem})
        config = GateConfig(listen=(("127.0.0.1", 0),))
        async with running_gate(folder, policy, secrets={"saas": SECRET}, config=config) as gate:
            yield Town(gate, origin)


def part(name: str, value: str) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n--b--\r\n'.encode()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b'{"amount": 100, "note": "\xc3\xbc"}'),
        (FORM, b"amount=100&metadata[order]=7"),
        (PARTS, part("amount", "100")),
        (JSON | {"Content-Encoding": "gzip"}, gzip.compress(b'{"amount": 99}')),
        (FORM | {"Content-Encoding": "deflate"}, zlib.compress(b"amount=1")),
        (JSON, json.dumps({"amount": 3, "text": "x" * 100_000}).encode()),
    ],
    ids=["json", "form", "multipart", "gzip", "deflate", "long"],
)
async def test_what_was_judged_is_what_leaves(tmp_path: Path, headers: dict[str, str], body: bytes) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            answer = await agent.request("POST", "/v1/refunds", body, headers)
            assert answer.status == 200
        (seen,) = here.origin.requests
        plain = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(headers.get("Content-Encoding", ""), bytes)(
            body
        )
        assert (seen.body, seen.header("content-encoding")) == (plain, None)
        assert seen.header("content-length") == str(len(plain))
        (intent,) = await here.gate.records("call.intent")
        assert intent.body["decision"]["rules"] == ["small"]
        assert intent.body["req"]["len"] == len(plain)


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        (JSON, b'{"amount": 101}', 403, "not_allowed"),
        (FORM, b"amount=101", 403, "not_allowed"),
        (JSON, b"{}", 403, "condition_failed"),
        (JSON, b"[]", 403, "condition_failed"),
        (JSON, b'{"amount": "lots"}', 403, "condition_failed"),
        ({}, b"", 403, "condition_failed"),
        (JSON, b'{"amount": 1, "reason": "fraudulent"}', 403, "rule_denied"),
        (JSON, b'{"amount": 1, "amount": 900}', 415, "content_refused"),
        (JSON, b'{"amount": 1, "Amount": 900}', 415, "content_refused"),
        (FORM, b"amount=1&amount=900", 415, "content_refused"),
        (FORM, b'{"amount": 1}', 415, "content_refused"),
        (JSON, b"amount=1", 415, "content_refused"),
        (JSON, b'{"amount": 1', 415, "content_refused"),
        (PARTS, part("amount", "1") + b"--b", 415, "content_refused"),
        ({}, b'{"amount": 1}', 415, "content_refused"),
        ({"Content-Type": "text/plain"}, b'{"amount": 1}', 415, "content_refused"),
        (
            {"Content-Type": "application/json; charset=utf-16"},
            '{"amount": 1}'.encode("utf-16"),
            415,
            "content_refused",
        ),
        (JSON | {"Content-Encoding": "gzip"}, b'{"amount": 1}', 415, "encoding_refused"),
        (JSON | {"Content-Encoding": "rot13"}, b'{"amount": 1}', 415, "encoding_refused"),
        (JSON, b" " * (2 << 20), 413, "body_too_large"),
    ],
)
async def test_what_cannot_be_told_stays_here(
    tmp_path: Path, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            answer = await agent.request("POST", "/v1/refunds", body, headers)
        assert (answer.status, answer.code) == (status, code)
        assert here.origin.requests == []
        (denied,) = await here.gate.records("call.denied")
        assert denied.body["decision"]["reasons"][0]["code"] == code
        assert await here.gate.records("call.intent") == []


async def test_two_content_types_are_refused(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        agent.writer.write(
            b"POST /v1/refunds HTTP/1.1\r\nHost: saas.test\r\nContent-Type: application/json\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 8\r\n\r\namount=1"
        )
        answer = await agent.read_answer("POST")
        assert answer.code in ("content_refused", "malformed_request")
        assert here.origin.requests == []


async def test_a_condition_on_the_path_needs_no_body(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            assert (await agent.request("GET", "/v1/charges/ch_1")).status == 200
            denied = await agent.request("GET", "/v1/charges/py_1")
            assert (denied.status, denied.code) == (403, "not_allowed")
        assert [request.target for request in here.origin.requests] == ["/v1/charges/ch_1"]


async def test_a_body_is_not_waited_for_where_no_rule_could_allow(tmp_path: Path) -> None:
    """The refusal comes with the head; the rule that reads bodies does not make the gate wait for one."""
    async with town(tmp_path) as here, here.agent() as agent:
        await agent.send("POST", "/v1/payouts", None, JSON | {"Content-Length": "10"})
        answer = await asyncio.wait_for(agent.read_answer("POST"), 10)
        assert (answer.status, answer.code) == (403, "not_allowed")


async def test_what_would_be_streamed_is_held_where_a_rule_reads(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        answer = await agent.request("POST", "/v1/files", b'{"reason": "fraudulent"}', JSON)
        assert (answer.status, answer.code) == (403, "rule_denied")
        answer = await agent.request("POST", "/v1/files", b"x" * (2 << 20), JSON)
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert here.origin.requests == []
