"""The access review: what an account can do, who answers for it, now, then, and under a policy that is only written."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.worlds.product import Product, running

OWNERS = "{accountable: ana@x.example, system: ben@x.example, risk: eve@x.example}"
POLICY = f"""\
exeat: 1
tenant: acme
connections:
  stripe: {{host: api.stripe.com, secret: stripe/key}}
  wiki: {{host: wiki.example, port: 8443}}
accounts:
  refunds:
    owners: {OWNERS}
    limits:
      concurrency: 2
      rate: [{{connection: stripe, max: 10, per: minute}}]
      spend: [{{meter: price, max: 5 USD, per: day}}]
    rules:
      - {{id: small, allow: {{connection: stripe, methods: [POST], path: /v1/refunds}}, when: int(body.amount) <= 100}}
      - {{id: anywhere, allow: {{connection: "*", methods: [GET], path: /v1/**}}}}
      - {{id: weekend, deny: "*", when: "now.weekday in ['sat', 'sun']"}}
  idle:
    owners: {OWNERS}
"""


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with running(policy=POLICY) as product:
        yield product


def test_what_it_can_do_and_who_answers_for_it(product: Product) -> None:
    done = product.cli("actions", "refunds").ok()
    lines = done.out.splitlines()
    assert lines[0].startswith("acme/refunds  autonomous  policy sha256:")
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["accountable", "ana@x.example"],
        ["system", "ben@x.example"],
        ["risk", "eve@x.example"],
    ]
    assert lines[4] == "may"
    assert [line.split() for line in lines[5:8]] == [
        ["small", "POST", "https://api.stripe.com/v1/refunds", "(stripe)", "when", "int(body.amount)", "<=", "100"],
        ["anywhere", "GET", "https://api.stripe.com/v1/**", "(stripe)"],
        ["anywhere", "GET", "https://wiki.example:8443/v1/**", "(wiki)"],
    ]
    assert lines[8] == "never"
    assert lines[9].split()[:3] == ["weekend", "any", "method"]
    assert lines[-3:] == [
        "at most 2 calls at once",
        "at most 10 per minute on stripe, 10 at once",
        "at most 5 USD per day",
    ]
    document = product.cli("actions", "refunds", "--json").ok().json
    assert document["owners_missing"] == []
    assert document["access"]["allowed"][0]["secret"] == "stripe/key"
    assert document["policy"] == product.status()["policy"]


def test_a_rule_about_tools_says_which_and_on_the_connections_that_have_them(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "tools.yaml"
    rules = '      - {id: look, allow: {tools: ["stripe.*"], effects: [read]}}\n'
    file.write_text(POLICY.replace("      - {id: small", f"{rules}      - {{id: small"))
    lines = product.cli("actions", "refunds", "--policy", str(file)).ok().out.splitlines()
    looks = [line.split() for line in lines if "look" in line]
    assert looks == [["look", "any", "method", "https://api.stripe.com/**", "(stripe)", "stripe.*,", "only", "read"]]
    document = product.cli("actions", "refunds", "--policy", str(file), "--json").ok().json
    assert (document["access"]["allowed"][0]["tools"], document["access"]["allowed"][0]["effects"]) == (
        ["stripe.*"],
        ["read"],
    )


def test_an_account_without_rules_may_do_nothing(product: Product) -> None:
    out = product.cli("actions", "idle").ok().out
    assert "may do nothing" in out
    assert "without any limit" in out


def test_an_account_that_is_not_there_is_a_no(product: Product) -> None:
    done = product.cli("actions", "ghost")
    assert done.code == 1
    assert "idle, refunds" in done.err


def test_as_of_a_date_it_is_the_policy_of_then(product: Product) -> None:
    before = datetime.now(UTC).isoformat()
    digest = product.status()["policy"]
    changed = POLICY.replace("path: /v1/refunds", "path: /v1/payouts")
    product.apply(changed).ok()
    now = product.cli("actions", "refunds", "--json").ok().json
    assert now["access"]["allowed"][0]["path"] == "/v1/payouts"
    then = product.cli("actions", "refunds", "--as-of", before, "--json").ok().json
    assert (then["policy"], then["access"]["allowed"][0]["path"]) == (digest, "/v1/refunds")
    today = product.cli("actions", "refunds", "--as-of", f"{datetime.now(UTC):%Y-%m-%d}", "--json").ok().json
    assert today["policy"] == now["policy"]
    early = product.cli("actions", "refunds", "--as-of", f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%d}")
    assert early.code == 1
    assert "no policy was active then" in early.err


def test_a_policy_that_is_not_applied_is_reviewed_from_its_file(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(POLICY.replace("api.stripe.com", "api.other.example"))
    document = product.cli("actions", "refunds", "--policy", str(file), "--json").ok().json
    assert document["access"]["allowed"][0]["destination"] == "https://api.other.example"
    file.write_text("exeat: 2\n")
    assert product.cli("actions", "refunds", "--policy", str(file)).code == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--as-of", "yesterday"), "2026-11-25"),
        (("--as-of", "2026-11-25T10:00:00"), "2026-11-25T14:00:00Z"),
        (("--as-of", "2026-11-25", "--policy", "x"), "two policies"),
    ],
)
def test_wrong_use_says_how(product: Product, options: tuple[str, ...], said: str) -> None:
    done = product.cli("actions", "refunds", *options)
    assert done.code == 2
    assert said in done.err
