"""Stage `observe` has an end, and operators are told of it before it comes and after it has come."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from control.doctor import Verdict, examine
from control.observed import observed_warnings
from rules.policy.compile import compile_policy
from rules.policy.load import parse_policy
from tests.worlds.product import running

POLICY = """\
exeat: 1
tenant: acme
timezone: UTC
connections:
  shop: {host: shop.example}
accounts:
  watched:
    owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}
    stage: observe
    until: 2026-12-02
    rules:
      - {id: all, allow: {connection: shop, path: /a}}
  decided:
    owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}
"""
END = datetime.fromisoformat("2026-12-03T00:00:00Z")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (timedelta(days=6, hours=3), "stage observe for 6 days more: what its rules deny leaves all the same"),
        (timedelta(days=2, seconds=1), "stage observe for 2 days more: what its rules deny leaves all the same"),
        (timedelta(days=2), "stage observe ends in 2 days; from then on its 1 rule decide"),
        (timedelta(hours=5, minutes=1), "stage observe ends in 5 hours; from then on its 1 rule decide"),
        (timedelta(0), "stage observe has ended, its 1 rule decide; say stage: autonomous"),
    ],
)
def test_the_time_left_is_said(before: timedelta, said: str) -> None:
    tenants = compile_policy(parse_policy({"acme.yaml": POLICY.encode()})).tenants.values()
    assert list(observed_warnings(tenants, END - before)) == [f"acme/watched: {said}"]


def test_status_and_doctor_tell_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXEAT_RUN", raising=False)

    def told(state: Path) -> list[tuple[Verdict, str]]:
        return [(f.verdict, f.text) for f in examine(state) if f.subject == "observe"]

    with running(policy=POLICY.replace("2026-12-02", "2000-01-01")) as product:
        (warning,) = product.status()["warnings"]
        assert warning == "acme/watched: stage observe has ended, its 1 rule decide; say stage: autonomous"
        assert f"warning  {warning}" in product.cli("status").ok().out
        assert told(product.state) == [(Verdict.WARNING, warning)]
        product.apply(POLICY.replace("2026-12-02", "9000-01-01")).ok()
        assert "days more" in product.status()["warnings"][0]
        assert told(product.state) == []
