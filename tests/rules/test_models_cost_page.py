"""docs/how-to/cap-what-models-cost.md: its policies are valid, and its rules do what it says they do."""

import json
import re
from pathlib import Path
from textwrap import indent

import pytest

from proxy.trial import run_cases
from rules.policy.compile import compile_policy
from rules.policy.load import parse_policy
from rules.prices.learned import FADE, MARGIN, READ, WRITTEN

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "cap-what-models-cost.md").read_text()
OURS = b"prices: 1\nbook: ours\nmodels: {m: {input: 1 USD}}\n"


def example(kind: str) -> str:
    (text,) = re.findall(rf"^```yaml{kind}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(text)


def test_the_policy_is_valid_and_counts_what_it_says() -> None:
    policy = compile_policy(parse_policy({"acme.yaml": example("").encode()})).tenants["acme"]
    plan = policy.accounts["support-agent"].plan
    assert [metered.name for metered in plan.on("openai")] == ["price", "tokens"]
    assert [metered.name for metered in plan.on("claude")] == ["price", "tokens"]


def test_a_server_of_ones_own_needs_its_service_alone() -> None:
    text = example("").replace("connections:\n", "connections:\n" + indent(example(" connections"), "  "))
    assert parse_policy({"acme.yaml": text.encode(), "ours.yaml": OURS}).documents


ASKED = [
    ("/v1/chat/completions", {"model": "m", "messages": [], "max_tokens": 5}, "allow"),
    ("/v1/chat/completions", {"model": "m", "messages": []}, "deny rule_denied"),
    ("/v1/responses", {"model": "m", "input": "hi"}, "allow"),
    ("/v1/responses", {"model": "m", "conversation": "c"}, "deny rule_denied"),
    ("/v1/images/generations", {"model": "m"}, "deny not_allowed"),
]


def test_the_rules_deny_what_is_not_said() -> None:
    text = example("").rstrip() + "\n" + indent(example(" rules"), " " * 6)
    tests = [
        f'  - {{account: support-agent, call: "POST openai {path}", body: {json.dumps(body)}, expect: {expect}}}'
        for path, body, expect in ASKED
    ]
    source = parse_policy({"acme.yaml": "\n".join((text, "tests:", *tests)).encode()})
    report = run_cases(source, compile_policy(source))
    assert report.failed == ()
    assert report.passed == len(ASKED)


@pytest.mark.parametrize("number", [WRITTEN.floor, WRITTEN.start, READ.start])
def test_its_numbers_are_the_programs(number: int) -> None:
    assert f"{number:,}" in PAGE
    assert (FADE, MARGIN) == (16, 4)
