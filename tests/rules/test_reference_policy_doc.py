"""docs/reference/policy.md: its examples are valid, its tables true, and no key is left out."""

import re
from pathlib import Path
from textwrap import indent

import pytest
from pydantic import BaseModel

from proxy.trial import run_cases
from rules.meters import METERS
from rules.policy import limit_models, models
from rules.policy.cases import CODES
from rules.policy.compile import compile_policy
from rules.policy.load import parse_policy
from rules.policy.matcher import Matcher, Rule
from rules.policy.source import PolicyInvalid
from rules.policy.templates import normal_segments, parse_template

DOC = (Path(__file__).parents[2] / "docs" / "reference" / "policy.md").read_text()
EXAMPLES = [
    (kind, text)
    for language, kind, text in re.findall(r"^```(\S*) ?(\S*)\n(.*?)^```$", DOC, re.M | re.S)
    if language == "yaml"
]

OWNERS = "owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}\n"
TICKETS = "connections:\n  tickets: {host: acme.zendesk.com}\n"
SERVICES = """connections:
  stripe: {host: api.stripe.com, account: acct_1Abc, mode: live, secret: stripe/refunds}
  github: {host: api.github.com, secret: github/bot}
"""


def whole(kind: str, text: str) -> str:
    """The policy that an example is a part of."""
    head = "exeat: 1\ntenant: acme\n"
    match kind:
        case "":
            return text
        case "top":
            return head + text
        case "connections":
            return head + "connections:\n" + indent(text, "  ")
        case "account":
            owners = "" if text.startswith("owners:") else OWNERS
            return head + TICKETS + "accounts:\n  agent:\n" + indent(owners + text, "    ")
        case "rules":
            return head + TICKETS + "accounts:\n  agent:\n" + indent(OWNERS + "rules:\n" + indent(text, "  "), "    ")
        case "tools":
            return head + SERVICES + "accounts:\n  agent:\n" + indent(OWNERS + "rules:\n" + indent(text, "  "), "    ")
        case "tool-tests":
            (rules,) = (text for kind, text in EXAMPLES if kind == "tools")
            return whole("tools", rules) + "tests:\n" + indent(text, "  ")
        case "tests":
            (rules,) = (text for kind, text in EXAMPLES if kind == "rules" and "id: small-refunds" in text)
            return whole("rules", rules) + "tests:\n" + indent(text, "  ")
        case _:
            raise AssertionError(f"an example of an unknown kind: {kind}")


@pytest.mark.parametrize(("kind", "text"), EXAMPLES, ids=[text.splitlines()[0][:40] for _, text in EXAMPLES])
def test_an_example_is_valid(kind: str, text: str) -> None:
    # Parsed in memory: the one file that an example refers to, an authority, is not there.
    raw = whole(kind, text).encode()
    if "corp-ca.pem" not in text:
        assert parse_policy({"acme.yaml": raw}).documents
        return
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy({"acme.yaml": raw})
    assert [found.message for found in caught.value.errors] in (
        ["ca: the file is missing"],
        ["extra_ca: the file is missing"],
    )


@pytest.mark.parametrize(("kind", "cases"), [("tests", 6), ("tool-tests", 8)])
def test_the_examples_of_tests_pass(kind: str, cases: int) -> None:
    (text,) = (text for found, text in EXAMPLES if found == kind)
    source = parse_policy({"acme.yaml": whole(kind, text).encode()})
    report = run_cases(source, compile_policy(source))
    assert [outcome.failure for outcome in report.failed] == []
    assert report.passed == cases


def test_what_a_case_may_expect_is_listed() -> None:
    sentence = re.search(r"^`expect` may name (.*?):", DOC, re.M | re.S)
    assert sentence is not None
    assert re.findall(r"`(\w+)`", sentence[1]) == list(CODES)


def test_the_first_example_is_without_warnings() -> None:
    kind, text = EXAMPLES[0]
    assert kind == ""
    assert parse_policy({"acme.yaml": text.encode()}).warnings == ()


def test_every_key_of_the_schema_is_explained() -> None:
    kinds = (*vars(models).values(), *vars(limit_models).values())
    documents = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    keys = {name for document in documents for name in document.model_fields}
    assert len(keys) > 30
    assert sorted(key for key in keys if f"`{key}`" not in DOC) == []


def test_every_meter_is_in_the_table() -> None:
    (table,) = re.findall(r"^\| meter \| counts \| due \|\n(.*?)^$", DOC, re.M | re.S)
    named = re.findall(r"^\| `([A-Z_.a-z]+)`", table, re.M)
    assert set(named) == {meter.name for meter in METERS} - {"UNIT"} | {"recipients"}


def test_the_table_of_path_templates_is_true() -> None:
    rows = re.findall(r"^\| `(/\S*)` \| (.*?) \| (.*?) ?\|$", DOC, re.M)
    assert len(rows) == 4
    for template, matches, misses in rows:
        matcher = Matcher((Rule("r", "x", None, parse_template(template), 0),))
        for paths, expected in ((matches, True), (misses, False)):
            for path in re.findall(r"`(.*?)`", paths):
                segments = normal_segments(path)
                assert segments is not None
                assert bool(matcher.matching("x", "GET", segments)) is expected, (template, path)
