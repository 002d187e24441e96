"""What is valid and probably not meant, each by its name, at its line."""

import re
from pathlib import Path

import pytest

from control.cli import run_command
from rules.policy.finding import NAMES
from rules.policy.load import parse_policy
from rules.policy.values import METHODS

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "policy.md"
BASE = """\
exeat: 1
tenant: acme
connections:
  tickets: {host: acme.zendesk.com}
  models: {host: api.openai.com}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}
    limits: {concurrency: 2}
    rules:
      - {id: read, allow: {connection: tickets, methods: [GET], path: "/api/{kind}/**"}}
      - {id: chat, allow: {connection: models, methods: [POST], path: /v1/chat}}
"""
LIMITS = "    limits: {concurrency: 2}\n"


def warned(text: str) -> list[tuple[int, str]]:
    return [(w.line, w.name) for w in parse_policy({"acme.yaml": text.encode()}).warnings]


def of(rule: str) -> list[str]:
    """The names of the warnings that a third rule brings, all at its line."""
    found = warned(f"{BASE}      - {{id: more, {rule}}}\n")
    assert {line for line, _ in found} <= {13}
    return [name for _, name in found]


def test_the_base_of_these_tests_is_without_warnings() -> None:
    assert warned(BASE) == []


@pytest.mark.parametrize(
    ("when", "names"),
    [
        ("1 > 2", ["constant-condition"]),
        ("1 < 2", ["constant-condition"]),
        ("false && int(body.amount) < 3", ["constant-condition"]),
        ("1 / 0 > 1", ["constant-condition"]),
        ("int(body.amount) < 3", []),
        ("path.id == '7'", []),
        ("path.kind == 'x'", ["unknown-segment"]),
        ("body.path.kind == 'path.kind'", []),
        ("query.q == 'path.kind' || path.id != path.ids", ["unknown-segment"]),
    ],
)
@pytest.mark.parametrize("verb", ["allow", "deny"])
def test_a_condition_that_no_call_can_make_a_difference_to(verb: str, when: str, names: list[str]) -> None:
    rule = f'{verb}: {{connection: tickets, methods: [POST], path: "/api/v2/{{id}}"}}, when: "{when}"'
    assert of(rule) == names


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ("allow: {connection: tickets, methods: [GET], path: /api/v2/users}", ["shadowed-rule"]),
        ('allow: {connection: tickets, methods: [GET], path: "/api/{kind}/users/**"}', ["shadowed-rule"]),
        ("allow: {connection: tickets, methods: [GET], path: /api/v2/x}, when: now.hour < 8", ["shadowed-rule"]),
        ("allow: {connection: models, methods: [POST], path: /v1/chat}, when: now.hour < 8", ["shadowed-rule"]),
        # the same twice is another warning
        ("allow: {connection: models, methods: [POST], path: /v1/chat}", ["duplicate-rule"]),
        # other calls, other bodies, or not the broader of the two
        ("allow: {connection: tickets, methods: [GET, POST], path: /api/v2/users}", []),
        ("allow: {connection: tickets, methods: [GET], path: /api/v2/users, body: inspect}", []),
        ("allow: {connection: tickets, methods: [GET], path: /api/**}", []),
        ("allow: {connection: tickets, methods: [GET], path: /api}", []),
        ("allow: {connection: models, methods: [GET], path: /api/v2/users}", []),
        ("deny: {connection: tickets, methods: [GET], path: /api/v2/users}", []),
    ],
)
def test_an_allow_rule_that_makes_no_difference(rule: str, names: list[str]) -> None:
    found = warned(f"{BASE}      - {{id: more, {rule}}}\n")
    # A rule that is broader than the one above it shadows that one: told there.
    assert [name for line, name in found if line == 13] == names


def test_of_two_rules_one_of_which_is_broader_only_the_other_is_shadowed() -> None:
    text = BASE + '      - {id: wide, allow: {connection: "*", methods: [GET], path: /**}}\n'
    assert warned(text) == [(11, "shadowed-rule")]
    (warning,) = parse_policy({"acme.yaml": text.encode()}).warnings
    assert warning.message == "read allows nothing that wide does not allow"
    assert str(warning).startswith("acme.yaml:11:")
    assert str(warning).endswith("remove read, or narrow wide [shadowed-rule]")


def test_a_rule_about_tools_beside_one_about_everything_makes_no_difference() -> None:
    text = BASE.replace("models: {host: api.openai.com}", "models: {service: stripe, host: api.stripe.com}")
    everything = '      - {id: wide, allow: {connection: "*", path: /**}}\n'
    about_tools = "      - {id: refund, allow: stripe.refund.create}\n"
    assert (14, "shadowed-rule") in warned(text + everything + about_tools)
    assert warned(text + about_tools) == []


def test_rules_that_cover_one_another_only_together_are_all_needed() -> None:
    rules = "".join(
        f"      - {{id: r{n}, allow: {{connection: models, methods: [{methods}], path: /x}}}}\n"
        for n, methods in enumerate(("GET, POST", "GET", "POST"))
    )
    # The first is covered by the other two, each of them by the first: it is not the first that can go.
    assert warned(BASE + rules) == [(14, "shadowed-rule"), (15, "shadowed-rule")]


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ('allow: {connection: "*", methods: [POST], path: /x}', ["wildcard-write"]),
        ('allow: {connection: "*", path: /x/y}', ["wildcard-write"]),
        ("allow: {connection: models, methods: [GET, PUT], path: /**}", ["wildcard-write"]),
        ('allow: {connection: "*", methods: [GET, HEAD, OPTIONS], path: /x}', []),
        ("allow: {connection: models, methods: [POST], path: /x/**}", []),
        ('allow: {connection: "*", methods: [POST], path: /x}, when: now.hour < 8', []),
    ],
)
def test_writes_that_are_allowed_everywhere(rule: str, names: list[str]) -> None:
    assert of(rule) == names


@pytest.mark.parametrize(
    ("allow", "deny", "warns"),
    [
        ("allow: {connection: models, path: /**}, when: now.hour < 8", "deny: openai.files.delete", True),
        ("allow: [openai.files.*, openai.unknown]", "deny: openai.files.delete", True),
        ("allow: {connection: models, methods: [DELETE], path: /v2/**}", "deny: [openai.files.*]", True),
        ("allow: {connection: models, methods: [DELETE], path: /v1/Files/**}", "deny: openai.files.delete", True),
        ("allow: {connection: models, methods: [DELETE], path: /v1/responses/**}", "deny: openai.files.delete", False),
        ("allow: {connection: models, methods: [POST], path: /v2/**}", "deny: openai.files.delete", False),
        ("allow: {connection: tickets, methods: [DELETE], path: /v1/**}", "deny: openai.files.delete", False),
        ("allow: openai.files.*", "deny: openai.files.delete", False),
        ("allow: {connection: models, path: /v1/x}, when: now.hour < 8", "deny: openai.files.delete", False),
        ("allow: [openai.files.*, openai.unknown]", "deny: [openai.files.delete, openai.unknown]", False),
        ("allow: [openai.files.*, openai.unknown]", "deny: {effects: [delete]}", False),
    ],
)
def test_what_is_unknown_is_opened_beside_tools_that_are_denied(allow: str, deny: str, *, warns: bool) -> None:
    found = warned(BASE + f"      - {{id: more, {allow}}}\n      - {{id: not, {deny}}}\n")
    assert ((13, "unknown-beside-denied") in found) is warns
    server = BASE.replace("host: api.openai.com", "host: api.openai.com, service: mcp")
    place = "      - {id: more, allow: {connection: models, methods: [POST], path: /**}, when: now.hour < 8}\n"
    assert (14, "unknown-beside-denied") not in warned(server + place)
    assert (13, "unknown-beside-denied") in warned(server + place + "      - {id: not, deny: mcp.models.add}\n")


def test_writes_that_a_deny_rule_keeps_out_are_not_allowed_everywhere() -> None:
    wide = BASE + "      - {id: wide, allow: {connection: models, path: /x/y}}\n".replace("/x/y", "/**")
    assert "wildcard-write" in [name for _, name in warned(wide)]
    some = wide + '      - {id: keep, deny: {connection: "*", methods: [DELETE]}}\n'
    assert "wildcard-write" in [name for _, name in warned(some)]
    writes = ", ".join(method for method in METHODS if method not in ("GET", "HEAD", "OPTIONS"))
    every = wide + f'      - {{id: keep, deny: {{connection: "*", methods: [{writes}]}}}}\n'
    assert "wildcard-write" not in [name for _, name in warned(every)]


def test_an_account_that_may_write_without_a_limit() -> None:
    assert warned(BASE.replace(LIMITS, "")) == [(7, "no-limits")]
    assert warned(BASE.replace(LIMITS, "").replace("POST", "GET")) == []
    for limit in ('{rate: [{connection: "*", max: 1, per: hour}]}', "{spend: [{meter: price, max: 5 USD, per: day}]}"):
        assert warned(BASE.replace("{concurrency: 2}", limit)) == []


def test_the_reference_lists_every_warning_by_its_name() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    table = text[text.index("| warning |") :].split("\n\n")[0]
    assert tuple(re.findall(r"^\| `([a-z-]+)` \|", table, re.M)) == NAMES


def test_warnings_of_a_name_can_be_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(BASE.replace(LIMITS, "") + "      - {id: more, deny: {connection: models}, when: 1 > 2}\n")
    assert run_command(["check", str(file)]) == 0
    assert run_command(["check", "--strict", str(file)]) == 1
    capsys.readouterr()
    assert run_command(["check", "--strict", "--ignore", "no-limits", str(file)]) == 1
    out = capsys.readouterr().out
    assert "[constant-condition]" in out
    assert "[no-limits]" not in out
    accepted = ("--ignore", "no-limits", "--ignore", "constant-condition")
    assert run_command(["check", "--strict", *accepted, str(file)]) == 0
    assert run_command(["check", "--ignore", "no-such", str(file)]) == 2


@pytest.mark.parametrize(
    ("outcome", "rule", "reached"),
    [
        ("openai.chat.completions.create", None, True),  # by place: which tools that are is not looked into
        ("openai.chat.completions.create", "{tools: [openai.embeddings.*]}", False),
        ("openai.chat.completions.create", "{tools: [openai.chat.*]}", True),
        ("openai.chat.*", "openai.chat.completions.create", True),
        ("openai.chat.*", "{connection: tickets, methods: [GET], path: /x}", False),
        ("openai.chat.*", "{connection: '*', effects: [write]}", True),
    ],
)
def test_an_outcome_that_no_account_may_reach(outcome: str, rule: str | None, reached: bool) -> None:
    chat = "{connection: models, methods: [POST], path: /v1/chat}"
    text = BASE if rule is None else BASE.replace(chat, rule)
    flows = f"workflows:\n  triage: {{outcome: {{tools: [{outcome}]}}}}\n  other: {{outcome: declared}}\n"
    found = [place for place in warned(text + flows) if place[1] == "unreachable-outcome"]
    assert found == ([] if reached else [(14, "unreachable-outcome")])
