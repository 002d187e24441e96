"""`exeat blast-radius`: under the active policy, that of a date, and one that is only written."""

from datetime import UTC, datetime
from pathlib import Path

from tests.worlds.product import Product

POLICY = """\
exeat: 1
tenant: acme
timezone: Europe/Berlin
credentials: {max_ttl: 30m}
connections:
  stripe: {host: api.stripe.com, secret: stripe/key, price: 0.5 USD}
  wiki: {host: wiki.example, port: 8443}
accounts:
  refunds:
    owners: {accountable: ana@x.example, system: ben@x.example, risk: eve@x.example}
    limits:
      rate: [{connection: stripe, max: 10, per: hour}]
      spend: [{meter: price, max: 5.4 USD, per: day}]
    rules:
      - {id: refund, allow: {connection: stripe, methods: [POST], path: /v1/refunds}}
      - {id: anywhere, allow: {connection: "*", methods: [GET], path: /**}}
  idle:
    owners: {accountable: ana@x.example, system: ben@x.example, risk: eve@x.example}
"""


def test_the_most_it_can_do_is_told_to_people_and_to_programs(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.apply(POLICY).ok()
    before = datetime.now(UTC).isoformat()
    lines = product.cli("blast-radius", "refunds").ok().out.splitlines()
    assert lines[0].startswith("acme/refunds  autonomous  policy sha256:")
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "in a day of Europe/Berlin (25 hours at the longest) at most",
        "stripe https://api.stripe.com read/write 10 calls 5 USD reaches anybody by refund, anywhere",
        "wiki https://wiki.example:8443 read unbounded calls free reaches nobody by anywhere",
        "calls unbounded",
        "writes 10",
        "deletes 0",
        "at once unbounded",
        "money 5 USD (capped at 5.4 USD)",
        "a stolen credential works for 30m, or until revoked",
        "unbounded: calls, at once, recipients on stripe",
    ]
    assert "can do nothing" in product.cli("blast-radius", "idle").ok().out
    product.apply(POLICY.replace("max: 5.4 USD", "max: 900 USD")).ok()
    now = product.cli("blast-radius", "refunds", "--json").ok().json
    assert (now["blast_radius"]["writes"], now["unbounded"][-1]) == (259, "recipients on stripe")
    then = product.cli("blast-radius", "refunds", "--as-of", before, "--json").ok().json
    assert (then["blast_radius"]["writes"], then["blast_radius"]["reaches"][0]["micros"]) == (10, 5_000_000)
    assert then["policy"] != now["policy"]


def test_a_policy_that_is_not_applied_and_an_account_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(POLICY)
    product = Product(tmp_path)
    assert product.cli("blast-radius", "refunds", "--policy", "new.yaml", "--json").ok().json["source"] == "new.yaml"
    ghost = product.cli("blast-radius", "ghost", "--policy", "new.yaml")
    assert (ghost.code, "idle, refunds" in ghost.err) == (1, True)
    assert product.cli("blast-radius", "refunds", "--policy", "new.yaml", "--as-of", "2026-01-01").code == 2
