"""Alerts of a running product: raised by real calls, delivered to a real receiver, verified as the page says."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.origin import Peer, Request
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/alerts.md").read_text()
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
POLICY = """\
exeat: 1
tenant: acme
alerts:
  ops: {{webhook: "https://hooks.test/exeat", secret: ops, dial: "127.0.0.1:{port}", ca: lab-ca.pem, {whole}}}
connections:
  lab: {{host: saas.test, dial: "127.0.0.1:{port}", ca: lab-ca.pem, secret: lab, price: 1 USD}}
accounts:
  agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits: {{spend: [{{meter: price, max: 4 USD, per: day, alert: [50%, 100%]}}]}}
    rules: [{{id: all, allow: {{connection: lab, methods: [GET], path: /**}}}}]
"""
CALLS = """
import sys, urllib.request, urllib.error
for _ in range(int(sys.argv[1])):
    try:
        with urllib.request.urlopen("https://saas.test/x", timeout=20) as answer: print(answer.status)
    except urllib.error.HTTPError as error: print(error.code)
"""


async def script(request: Request, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture(scope="module")
def service() -> Iterator[OriginThread]:
    with OriginThread(("saas.test", "hooks.test"), script) as service:
        yield service


@pytest.fixture(scope="module")
def product(service: OriginThread) -> Iterator[Product]:
    files = {"lab-ca.pem": service.authority.pem}
    secrets = {"lab": b"the-real-secret", "ops": KEY.encode()}
    policy = POLICY.format(port=service.port, whole="installation: true")
    with running(policy=policy, files=files, secrets=secrets) as product:
        yield product


def hooks(service: OriginThread) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in service.seen("/exeat")]


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_what_calls_use_up_is_told_once_signed_and_on_record(product: Product, service: OriginThread) -> None:
    done = product.run(sys.executable, "-c", CALLS, "6").ok()
    assert done.out.split() == ["200"] * 4 + ["403"] * 2
    wait_until(lambda: len(hooks(service)) >= 3)
    told = {(one["type"], one["data"]["detail"].get("threshold")): one["data"] for one in hooks(service)}
    assert told.keys() == {("spend.threshold", "50%"), ("spend.threshold", "100%"), ("spend.refused", None)}
    half = told["spend.threshold", "50%"]
    assert (half["detail"]["account"], half["detail"]["limit"]) == ("agent", "price 4 USD per day")
    assert half["detail"]["used"] in ("2 USD", "3 USD", "4 USD")
    page: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)[0], page)
    for request in service.seen("/exeat"):
        headers = {name: request.header(name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
        assert page["verified"](headers, request.body, KEY)
        assert not page["verified"](headers, request.body + b" ", KEY)
    acts = [record for record in product.records("operator.act") if record["act"] == "alert.raise"]
    assert sorted(record["detail"]["kind"] for record in acts) == [
        "spend.refused",
        "spend.threshold",
        "spend.threshold",
    ]
    shown = product.cli("alerts", "list", "--json").ok().json
    assert {(d["destination"], d["state"]) for one in shown["alerts"] for d in one["deliveries"]} == {
        ("log", "delivered"),
        ("ops", "delivered"),
    }


def test_a_restart_tells_nothing_twice(product: Product, service: OriginThread) -> None:
    before = len(hooks(service))
    product.stop()
    (product.state / "followed.sqlite").unlink()  # everything is read again
    product.start()
    product.cli("spend").ok()
    time.sleep(1)
    assert len(hooks(service)) == before


def test_a_stop_order_is_told_and_a_trial_says_whether_a_destination_works(
    product: Product, service: OriginThread
) -> None:
    product.cli("revoke", "account", "agent", "--reason", "INC-9").ok()
    wait_until(lambda: any(one["type"] == "revocation" for one in hooks(service)))
    (told,) = [one["data"] for one in hooks(service) if one["type"] == "revocation"]
    assert (told["severity"], told["detail"]["reason"]) == ("critical", "INC-9")
    tried = product.cli("alerts", "test", "--tenant", "acme").ok().out
    assert re.search(r"acme/ops +delivered +attempts 1", tried)
    assert product.cli("alerts", "test", "--json").ok().json["tenant"] == "-"
    one = product.cli("alerts", "test", "ops").ok().out
    assert re.search(r"acme/ops +delivered", one)
    assert "acme/log" not in one
    nowhere = product.cli("alerts", "test", "opps")
    assert (nowhere.code, "there is no destination opps" in nowhere.err, "acme/ops" in nowhere.err) == (1, True, True)
    product.cli("secret", "remove", "ops", "--tenant", "acme").ok()
    failed = product.cli("alerts", "test", "--tenant", "acme")
    assert failed.code == 1
    assert re.search(r"acme/ops +waiting +attempts [1-9]", failed.out)
    assert KEY not in failed.out + product.log.read_text()
    assert product.cli("alerts", "test", "--tenant", "globex").code == 1


def test_the_pages_policy_and_commands_are_known(product: Product) -> None:
    commands = re.findall(r"^\$ (?:.* \| )?exeat (.+)$", PAGE, re.M)
    assert {tuple(command.split()[:2]) for command in commands} == {
        ("secret", "set"),
        ("alerts", "test"),
        ("alerts", "list"),
    }
    product.cli("alerts", "list").ok()
