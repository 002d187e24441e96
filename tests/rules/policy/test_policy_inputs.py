"""How long a policy has decision inputs kept."""

import pytest

from rules.policy.compile import KEEP_INPUTS_SECONDS, PolicySet, compile_policy
from rules.policy.diff import summarise
from rules.policy.load import parse_policy
from rules.policy.source import PolicyInvalid

HEAD = "exeat: 1\ntenant: acme\n"
DAY = 86_400


def policy(keep: str | None) -> PolicySet:
    text = HEAD if keep is None else f"{HEAD}inputs: {{keep: {keep}}}\n"
    return compile_policy(parse_policy({"acme.yaml": text.encode()}))


@pytest.mark.parametrize(("keep", "seconds"), [(None, 30 * DAY), ("90d", 90 * DAY), ("48h", 2 * DAY), ("none", 0)])
def test_it_says_how_long_also_from_its_bundle(keep: str | None, seconds: int) -> None:
    one = policy(keep)
    again = PolicySet.from_bundle(one.bundle)
    assert [p.tenants["acme"].keep_inputs_seconds for p in (one, again)] == [seconds, seconds]
    assert again.digest == one.digest
    assert (b"inputs" in one.bundle) is (keep is not None)  # one without it keeps its digest
    assert KEEP_INPUTS_SECONDS == 30 * DAY


@pytest.mark.parametrize("keep", ["23h", "4000d", "30", "0d", "forever", "[30d]", "''", "null"])
def test_what_is_no_such_time_is_refused(keep: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        policy(keep)
    assert "keep" in str(caught.value.errors[0])


def test_a_change_of_it_is_told() -> None:
    assert summarise(policy(None), policy("30d")).changes == ()
    assert summarise(policy("none"), policy("2d")).changes == ("acme: decision inputs are kept: 2d, was none",)
