"""Units that a reply tells the truth of: what a request asks for at most is set aside, what it got is settled."""

import json
from pathlib import Path
from typing import Any

import pytest

from rules.catalogue.catalogue import catalogue_of
from rules.catalogue.document import ServiceDocument
from rules.policy.load import parse_policy
from rules.policy.source import PolicyInvalid
from tests.worlds.authority import Authority
from tests.worlds.gate import Agent, running_gate, write_policy
from tests.worlds.origin import Action, Origin, answers, reply

pytestmark = pytest.mark.anyio

POLICY = """\
exeat: 1
tenant: acme
connections: {{crm: {{host: crm.test, dial: "127.0.0.1:{port}", ca: ca.pem}}}}
accounts:
  agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits: {{spend: [{{meter: rows, max: 1000, per: day}}]}}
    rules: [{{id: all, allow: {{connection: crm, path: /**}}}}]
"""
CRM = """\
catalogue: 1
service: crm
hosts: [crm.test]
tools:
  body: {call: POST /body, effect: read, units: {rows: args.limit}, told: {rows: meta.count}}
  header: {call: POST /header, effect: read, units: {rows: args.limit}, told: {rows: header X-Rows}}
  nothing: {call: POST /nothing, effect: read, units: {rows: args.limit}}
"""
ROWS = b'{"meta":{"count":7,"pages":1},"rows":["' + b"x" * 5000 + b'"]}'


def whole(body: bytes = ROWS, status: str = "200 OK", headers: str = "X-Rows: 9\r\n") -> bytes:
    return reply(body, status=status, headers=headers)


async def spent(folder: Path, path: str, *steps: Any) -> tuple[int, int, int, str | None]:
    """Rows of the intent, of the outcome, and in the budget; and how the origin was asked to encode its reply."""
    authority = Authority()
    async with Origin(authority.issue("crm.test"), answers(*steps)) as origin:
        files = {"ca.pem": authority.pem, "crm.yaml": CRM}
        policy = write_policy(folder / "policy", POLICY.format(port=origin.port), files)
        async with running_gate(folder, policy) as gate:
            async with Agent(gate, gate.world.token(), host="crm.test") as agent:
                fields = {"Content-Type": "application/json", "Accept-Encoding": "gzip", "Connection": "close"}
                await agent.send("POST", path, b'{"limit":100}', fields)
                await agent.reader.read()  # to its end, whatever it is
            (intent,) = await gate.records("call.intent")
            (outcome,) = await gate.records("call.outcome")
            (budget,) = gate.reservations.budgets()
            rows = [record.body["cost"]["units"]["rows"] for record in (intent, outcome)]
            assert budget.reserved_micros == 0
            asked = origin.requests[0].header("accept-encoding")
            return rows[0] // 1_000_000, rows[1] // 1_000_000, budget.spent_micros // 1_000_000, asked


@pytest.mark.parametrize(
    ("path", "steps", "truth", "asked"),
    [
        ("/body", (whole(headers=""),), 7, "identity"),
        ("/header", (whole(headers="X-Rows: 9\r\n"),), 9, "gzip"),
        ("/nothing", (whole(headers=""),), 100, "gzip"),
        ("/body", (whole(b'{"meta":{"count":250}}', headers=""),), 250, "identity"),
        ("/body", (whole(b'{"meta":{"count":-1}}', headers=""),), 100, "identity"),
        ("/body", (whole(b'{"meta":{"count":1.5}}', headers=""),), 100, "identity"),
        ("/body", (whole(b'{"meta":{}}', headers=""),), 100, "identity"),
        ("/body", (whole(headers="Content-Encoding: br\r\n"),), 100, "identity"),
        ("/header", (whole(headers="X-Rows: many\r\n"),), 100, "gzip"),
        ("/header", (whole(headers=""),), 100, "gzip"),
        ("/body", (whole(status="404 Not Found", headers=""),), 0, "identity"),
        ("/body", (whole(status="500 Oh", headers=""),), 100, "identity"),
        ("/body", (whole(headers="")[:-9], Action.ABORT), 100, "identity"),
    ],
)
async def test_what_a_reply_tells_is_settled_and_else_what_the_request_said(
    tmp_path: Path, path: str, steps: tuple[Any, ...], truth: int, asked: str
) -> None:
    assert await spent(tmp_path, path, *steps) == (100, truth, truth, asked)


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("{call: POST /a, effect: read, told: {rows: meta.count}}", "a reply corrects what a request says"),
        ("{call: POST /a, effect: read, units: {rows: args.n}, told: {rows: a b}}", "not a place in a reply"),
        ("{call: POST /a, effect: read, units: {rows: args.n}, told: {rows: header a b}}", "not the name of a header"),
        ("{call: query a, effect: read, units: {rows: args.n}, told: {rows: a}}", "has a reply of its own"),
        ("{call: query a, effect: read, usage: {reply: a, counts: {input: b}}}", "has a reply of its own"),
        ("{call: POST /a, effect: read, costs: unknown, usage: {reply: a, counts: {input: b}}}", "remove one of them"),
        ("{call: POST /a, effect: read, usage: {counts: {input: b}}}", "no reply has the counts"),
        ("{call: POST /a, effect: read, usage: {reply: a}}", "counted in one place"),
        ("{call: POST /a, effect: read, usage: {headers: {input: X}, reply: a}}", "headers stand in no body"),
        ("{call: POST /a, effect: read, usage: {reply: a, done: [x], counts: {input: b}}}", "there are no events"),
        (
            "{call: POST /a, effect: read, usage: {reply: a, counts: {input: b}, inside: {cached: input}}}",
            "cached cannot be in input",
        ),
        ("{call: POST /a, effect: read, usage: {reply: a, counts: {words: b}}}", "not one of the known words"),
    ],
)
def test_what_the_catalogue_cannot_mean_is_refused_with_its_place(tool: str, said: str) -> None:
    text = f"catalogue: 1\nservice: crm\nhosts: [crm.test]\ntools:\n  it: {tool}\n"
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy({"crm.yaml": text.encode()})
    assert any(said in str(error) for error in caught.value.errors), caught.value
    assert {error.file for error in caught.value.errors} == {"crm.yaml"}


def test_what_is_told_survives_being_written_out() -> None:
    told = {"rows": "header X-Rows"}
    tools = {"it": {"call": ["POST /a"], "effect": "read", "units": {"rows": "args.n"}, "told": told}}
    document = ServiceDocument.model_validate({"catalogue": 1, "service": "crm", "tools": tools})
    again = ServiceDocument.model_validate(document.model_dump(mode="json", exclude_none=True, exclude_unset=True))
    found = [catalogue_of((one,)).named("crm") for one in (document, again)]
    assert [None if one is None else one.tools["crm.it"].told for one in found] == [(("rows", "x-rows"),)] * 2
    assert json.loads(again.model_dump_json(exclude_none=True))["tools"]["it"]["told"] == told
