"""Cost per outcome as an operator asks for it: a real gate, real calls, the installed command line, the page."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.origin import Peer, Request
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/cost-per-outcome.md"
POLICY = """\
exeat: 1
tenant: acme
connections:
  s: {{service: stripe, host: api.stripe.com, dial: "127.0.0.1:{port}", ca: lab-ca.pem, secret: lab, price: 0.1 USD}}
accounts:
  support-agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits:
      concurrency: 3
      spend: [{{meter: price, max: 5 USD, per: day}}, {{meter: price, max: 2 USD, per: run}}]
    rules: [{{id: refund, allow: [stripe.refund.create, stripe.customer.list]}}]
  idle-agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
workflows:
  refunds: {{outcome: {{tools: stripe.refund.create}}}}
  triage: {{outcome: declared}}
"""
CALLS = """
import sys, urllib.request, urllib.error
for path in sys.argv[1:]:
    data = None if path == "/v1/customers" else b"charge=ch_" + path.encode("ascii").hex().encode()
    target = path if data is None else "/v1/refunds"
    ask = urllib.request.Request("https://api.stripe.com" + target, data)
    try:
        with urllib.request.urlopen(ask, timeout=20) as answer: print(answer.status)
    except urllib.error.HTTPError as error: print(error.code)
"""


async def script(request: Request, peer: Peer) -> None:
    failed = request.body.endswith(b"626164")  # "bad" in hex
    body = b'{"error":{}}' if failed else b'{"id":"re_1"}'
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    await peer.send(head % (b"402 Payment Required" if failed else b"200 OK", len(body)) + body)


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with OriginThread(("api.stripe.com",), script) as service:
        files = {"lab-ca.pem": service.authority.pem}
        with running(policy=POLICY.format(port=service.port), files=files, secrets={"lab": b"sk_test_x"}) as product:
            calls(product, "refunds", "a", "b", "bad", "/v1/customers")
            calls(product, "triage", "/v1/customers")
            yield product


def calls(product: Product, workflow: str, *paths: str) -> None:
    options = ("--as", "support-agent", "--workflow", workflow)
    product.run(sys.executable, "-c", CALLS, *paths, options=options).ok()


def test_cost_per_outcome_run_and_tool(product: Product) -> None:
    told = product.cli("spend", "--json").ok().json
    rows = {row["workflow"]: row for row in told["rows"]}
    assert (rows["refunds"]["calls"], rows["refunds"]["failed"], rows["refunds"]["outcomes"]) == (4, 1, 2)
    (amount,) = rows["refunds"]["amounts"]
    assert (amount["micros"], amount["failed"], amount["per_outcome"]) == (400_000, 100_000, 200_000)
    assert (rows["triage"]["calls"], rows["triage"]["outcomes"]) == (1, 0)
    by_tool = {row["tool"]: row for row in product.cli("spend", "--by", "tool", "--json").ok().json["rows"]}
    assert by_tool["stripe.refund.create"]["calls"] == 3
    assert by_tool["stripe.customer.list"]["calls"] == 2
    became = product.cli("spend", "--by", "outcome", "--workflow", "refunds").ok().out
    assert re.search(r"acme +reached +4 +0 +1 +1 +2 +0.40 USD", became)
    text = product.cli("spend", "--workflow", "refunds").ok().out
    assert re.search(r"acme +support-agent +refunds +4 +0 +1 +1 +2 +0.40 USD +0.20 USD +25 % +-", text)
    assert re.search(r"acme/support-agent per day +0.50 USD +0.00 USD +4.50 USD +5.00 USD ", text)
    assert re.search(r"acme/idle-agent +never", text)


def test_an_outcome_is_declared_by_an_operator(product: Product) -> None:
    (run,) = [
        row["run"] for row in product.cli("spend", "--by", "run", "--workflow", "triage", "--json").ok().json["rows"]
    ]
    done = product.cli("outcome", run, "--count", "2", "--note", "TICKET-11", "--json").ok().json
    assert (done["workflow"], done["account"], done["count"]) == ("triage", "support-agent", 2)
    (record,) = [r for r in product.records("operator.act") if r["act"] == "outcome.declare"]
    assert (record["seq"], record["detail"]["note"], record["tenant"]) == (done["seq"], "TICKET-11", "acme")
    (row,) = product.cli("spend", "--workflow", "triage", "--json").ok().json["rows"]
    assert (row["outcomes"], row["amounts"][0]["per_outcome"]) == (2, 50_000)


def test_what_makes_no_sense_is_said(product: Product) -> None:
    unknown = product.cli("outcome", "r_never")
    assert (unknown.code, "no call of a run r_never" in unknown.err) == (1, True)
    assert product.cli("outcome", "r_1", "--count", "0").code == 2
    assert product.cli("spend", "--since", "yesterday").code == 2
    nobody = product.cli("spend", "--tenant", "globex")
    assert (nobody.code, "there is no tenant globex" in nobody.err) == (1, True)
    assert product.cli("spend", "--by", "colour").code == 2


def test_budgets_of_runs_and_holders_are_shown(product: Product) -> None:
    shown = product.cli("limits", "show", "--account", "support-agent", "--json").ok().json
    day, *runs = shown["budgets"]
    assert (day["per"], day["by"], day["left"]) == ("day", "", 4_500_000)
    assert sorted((one["per"], one["by"][:4], one["left"]) for one in runs) == [
        ("run", "run=", 1_600_000),
        ("run", "run=", 1_900_000),
    ]
    assert [(one["about"], one["max"], one["taken"], one["holders"]) for one in shown["slots"]] == [("*", 3, 0, [])]
    assert "acme/support-agent *  0" in product.cli("limits", "show").ok().out


def test_without_a_process_it_is_the_same(product: Product) -> None:
    before = product.cli("spend", "--json").ok().json
    product.stop()
    try:
        after = product.cli("spend", "--json").ok().json
        assert (after["rows"], after["left"]) == (before["rows"], before["left"])
        (product.state / "followed.sqlite").unlink()
        assert product.cli("spend", "--json").ok().json["rows"] == before["rows"]
    finally:
        product.start()


def test_the_pages_commands(product: Product) -> None:
    run = product.cli("spend", "--by", "run", "--json").ok().json["rows"][0]["run"]
    commands = re.findall(r"^\$ exeat (.+)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        words = re.findall(r'"[^"]*"|\S+', command.replace("r_7Kq", run))
        product.cli(*(word.strip('"') for word in words)).ok()
