"""The policy that `init` writes."""

import re

import pytest

from rules.policy.compile import compile_policy
from rules.policy.invalid import ValueInvalid
from rules.policy.load import parse_policy
from rules.policy.starter import starter_policy


def test_it_loads_and_allows_nothing() -> None:
    text = starter_policy(tenant="globex", owner="gil@globex.example", timezone="Europe/Berlin")
    source = parse_policy({"globex.yaml": text.encode()})
    tenant = compile_policy(source).tenants["globex"]
    assert tenant.timezone.key == "Europe/Berlin"
    assert tenant.connections == {}
    assert [account.allow.rules for account in tenant.accounts.values()] == [()]
    assert tenant.accounts["my-agent"].owners.risk == "gil@globex.example"
    assert [warning.message for warning in source.warnings] == ["my-agent has no allow rule: every call is denied"]


def test_what_it_shows_in_comments_is_valid_too() -> None:
    text = starter_policy().replace("connections: {}", "connections:").replace("rules: []", "rules:")
    shown = re.sub(r"^#(?=  )", "", text, flags=re.M)
    source = parse_policy({"acme.yaml": shown.encode()})
    assert source.warnings == ()
    assert len(source.documents[0].accounts["my-agent"].rules) == 3


@pytest.mark.parametrize(
    "values", [{"tenant": "Acme"}, {"tenant": "a\nb: c"}, {"owner": "nobody"}, {"timezone": "Mars/Olympus"}]
)
def test_a_value_that_cannot_stand_in_a_policy_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValueInvalid):
        starter_policy(**values)
