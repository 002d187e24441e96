"""A policy's own tests: how they are written, what is wrong with them and where, and what they come to."""

import json
import re
from datetime import UTC, datetime
from itertools import permutations
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trial import Report, run_cases
from rules.content.content import read_content
from rules.policy.cases import CODES, FORM, JSON, moment, parse_form_body, parse_json_body
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy
from rules.policy.source import PolicyError, PolicyInvalid

BASE = """\
exeat: 1
tenant: acme
timezone: Europe/Berlin
connections:
  stripe: {host: api.stripe.com, secret: stripe/key}
  code: {host: api.github.com, account: acme}
  google: {host: www.googleapis.com}
  plain: {host: plain.corp.example, scheme: http, unsafe_plaintext: true}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}
    rules:
      - {id: small, allow: {connection: stripe, methods: [POST], path: /v1/refunds}, when: int(body.amount) <= 100}
      - {id: read, allow: {connection: "*", methods: [GET], path: "/v1/{kind}/{id}"}}
      - {id: fraud, deny: {connection: stripe}, when: "has(body.reason) && body.reason == 'fraudulent'"}
      - {id: keys, deny: {connection: stripe, path: /v1/keys/**}}
  idle:
    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}
    rules:
      - {id: night, deny: "*", when: "now.hour < 6"}
      - {id: refunds, allow: {connection: stripe, path: /**}, when: workflow == 'refunds'}
  tools:
    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}
    rules:
      - {id: refund, allow: stripe.refund.create, when: amount <= usd(100)}
      - {id: comment, allow: github.issues.createComment}
      - {id: drive, allow: google.*}
tests:
"""
GOOD = "  - {account: agent, call: POST stripe /v1/refunds, body: {amount: 100}, expect: allow, rule: small}\n"


def run(*cases: str) -> Report:
    source = parse_policy({"acme.yaml": (BASE + "".join(f"  - {case}\n" for case in cases)).encode()})
    return run_cases(source, compile_policy(source))


def outcome(case: str) -> str | None:
    (only,) = run(case).outcomes
    return only.failure


def refund(rest: str) -> str:
    return f"{{account: agent, call: POST stripe /v1/refunds, {rest}}}"


def by_tool(rest: str) -> str:
    return f"{{account: tools, call: {rest}}}"


PASSING = [
    refund("body: {amount: 100}, expect: allow, rule: small"),
    refund("form: {amount: 100}, expect: allow"),
    refund('form: "amount=1&metadata[a]=b", expect: allow'),
    refund("body: {amount: 101}, expect: deny not_allowed"),
    refund("expect: deny condition_failed, rule: small"),
    refund("body: [], expect: deny condition_failed"),
    refund("""body: '{"amount": 1, "amount": 2}', expect: deny content_refused"""),
    refund("body: amount=1, expect: deny content_refused"),
    refund('form: "amount=1&amount=2", expect: deny content_refused'),
    refund("body: {amount: 1, reason: fraudulent}, expect: deny rule_denied, rule: fraud"),
    "{account: agent, call: GET stripe /v1/charges/ch_1?expand=x, expect: allow, rule: read}",
    "{account: agent, call: GET plain /v1/charges/ch_1, expect: allow, rule: read}",
    "{account: agent, call: GET stripe /v1/%6beys/x, expect: deny rule_denied, rule: keys}",
    "{account: agent, call: GET stripe /v1/../v1/keys, expect: deny ambiguous_target}",
    "{account: agent, call: GET stripe /v1/a%2Fb/c, expect: deny ambiguous_target}",
    "{account: agent, call: GET stripe /v1/charges/ü, expect: deny malformed_request}",
    "{account: agent, call: GET stripe /v1/charges/1?access_token=x, expect: deny malformed_request}",
    "{account: agent, call: GET stripe /v1/charges/1?_method=DELETE, expect: deny method_refused}",
    "{account: agent, call: TRACE stripe /v1/charges/1, expect: deny method_refused}",
    "{account: idle, call: GET stripe /x, workflow: refunds, at: mon 06:00, expect: allow, rule: refunds}",
    "{account: idle, call: GET stripe /x, at: mon 06:00, expect: deny not_allowed}",
    "{account: idle, call: GET stripe /x, workflow: refunds, at: Mon 05:59, expect: deny rule_denied, rule: night}",
    "{account: idle, call: GET stripe /x, workflow: refunds, at: 2026-07-01 06:00, expect: allow}",
    "{account: tools, call: stripe.refund.create, args: {amount: 100 USD}, expect: allow, rule: refund}",
    "{account: tools, call: stripe.refund.create, args: {amount: 100.01 USD}, expect: deny not_allowed}",
    "{account: tools, call: stripe.refund.create, args: {}, expect: deny amount_unknown, rule: refund}",
    "{account: tools, call: POST stripe /v1/refunds, form: {charge: ch_1}, expect: deny amount_unknown}",
    "{account: tools, call: stripe.refund.create, args: {charge: ch_1, amount: 10000},"
    " found: {amount: 20000, amount_refunded: 0, currency: usd}, expect: allow}",
    "{account: tools, call: stripe.refund.create, args: {charge: ch_1, amount: 10001},"
    " found: {amount: 20000, amount_refunded: 0, currency: usd}, expect: deny not_allowed}",
    "{account: tools, call: stripe.refund.create, args: {charge: ch_1},"
    " found: {amount: 20000, amount_refunded: 10000, currency: usd}, expect: allow}",
    "{account: tools, call: stripe.refund.create, args: {charge: ch_1, amount: 1},"
    " found: {amount: 2, amount_refunded: 0, currency: jpy}, expect: deny condition_failed}",
    "{account: tools, call: github.issues.createComment, args: {owner: acme, repo: site, issue_number: 7, body: x},"
    " expect: allow}",
    "{account: tools, call: github.issues.createComment, args: {owner: other, repo: site, issue_number: 7},"
    " expect: deny account_mismatch}",
    "{account: tools, call: POST google /batch/drive/v3, expect: deny batch_refused}",
]


@pytest.mark.parametrize("case", PASSING)
def test_a_case_that_says_what_is_so_passes(case: str) -> None:
    assert outcome(case) is None


@pytest.mark.parametrize(
    ("case", "failure"),
    [
        (refund("body: {amount: 101}, expect: allow"), "expected allow, came deny not_allowed (No rule"),
        (refund("body: {amount: 1}, expect: deny not_allowed"), "expected deny not_allowed, came allow by small"),
        (refund("expect: deny not_allowed"), "expected deny not_allowed, came deny condition_failed by small"),
        (
            refund("body: {}, expect: deny rule_denied"),
            "expected deny rule_denied, came deny condition_failed by small",
        ),
        (
            "{account: agent, call: GET stripe /v1/keys/1, expect: allow, rule: read}",
            "expected allow by read, came deny rule_denied by keys (Rule keys denies this call.)",
        ),
        (
            "{account: agent, call: GET stripe /v1/keys/1, expect: deny rule_denied, rule: fraud}",
            "expected deny rule_denied by fraud, came deny rule_denied by keys",
        ),
        (
            "{account: agent, call: GET stripe /a/../b, expect: allow}",
            "expected allow, came deny ambiguous_target (a dot",
        ),
        (
            "{account: idle, call: GET stripe /x, workflow: refunds, expect: allow}",
            "rule night asks for the time, and the case has none (add at: tue 10:00)",
        ),
    ],
)
def test_a_case_that_does_not_says_what_came_and_why(case: str, failure: str) -> None:
    assert (outcome(case) or "").startswith(failure)


def test_a_rule_is_exercised_by_the_passing_cases_that_it_decides() -> None:
    report = run(
        refund("body: {amount: 100}, expect: allow"),
        refund("body: {amount: 1, reason: fraudulent}, expect: allow"),  # fails: what it exercises counts for nothing
        refund("body: {}, expect: deny condition_failed, rule: small"),
        "{account: agent, call: GET stripe /v1/keys/1, expect: deny rule_denied}",  # `read` decides nothing
    )
    assert report.passed == 3
    agent, idle, _ = report.coverage
    assert (agent.rules, agent.missed) == (("small", "read", "fraud", "keys"), ("read", "fraud"))
    assert (idle.account, idle.missed) == ("idle", ("refunds", "night"))


def test_an_allow_rule_that_cannot_be_told_is_not_exercised() -> None:
    (agent, *_) = run(refund("expect: deny condition_failed, rule: small")).coverage
    assert "small" in agent.missed


def errors_of(*cases: str) -> tuple[PolicyError, ...]:
    with pytest.raises(PolicyInvalid) as caught:
        run(*cases)
    return caught.value.errors


LINE = BASE.count("\n") + 1


@pytest.mark.parametrize(
    ("case", "where", "message", "fix"),
    [
        (
            refund("expect: allow").replace("agent", "agnet"),
            "agnet",
            "account: agnet is not declared",
            "did you mean agent?",
        ),
        (refund("expect: allow").replace("stripe", "strip"), "POST", "connection strip is not", "did you mean stripe?"),
        (refund("expect: allow").replace("POST ", ""), "stripe", "call: not a call", "write a tool, or a method"),
        (refund("expect: allow").replace("POST", "post"), "post", "upper-case", "write POST stripe /v1/refunds"),
        (refund("expect: allow").replace("/v1", "v1"), "POST", "call: not a call", "as in POST stripe /v1"),
        (refund("expect: yes"), "yes", "neither allow nor deny", "write allow"),
        (refund("expect: deny"), "deny", "deny without one code", "not_allowed"),
        (refund("expect: deny rule_denid"), "deny", "not a refusal", "did you mean rule_denied?"),
        (refund("expect: deny rate_limited"), "deny", "limits and secrets are not tried", "known here"),
        (refund("body: {}"), "{", "lacks expect", "add expect: allow"),
        ("{account: agent, expect: allow}", "{", "lacks call", "add call: GET"),
        ("{call: GET stripe /x, expect: allow}", "{", "lacks account", "add account:"),
        (refund("expect: allow, args: {}"), "{}}", "args: the call names no tool", "write a tool as call:"),
        (
            by_tool("stripe.refnd.create, expect: allow"),
            "stripe.re",
            "there is no such tool",
            "catalogue show",
        ),
        (
            by_tool("slack.chat.postMessage, expect: allow"),
            "slack",
            "no connection has this tool",
            "list",
        ),
        (
            by_tool("stripe.refund.create, body: {}, expect: allow"),
            "{}",
            "a tool has arguments",
            "args:",
        ),
        (
            by_tool("stripe.refund.create, args: [], expect: allow"),
            "[]",
            "not a mapping",
            "{name: value}",
        ),
        (refund("expect: allow, bdy: {}"), "bdy", "unknown key bdy", "did you mean body?"),
        (refund("expect: allow, body: {}, form: {}"), "{}}", "a request has one body", "remove one"),
        (refund("expect: allow, form: [a]"), "[a]", "not a form", "amount=100"),
        (refund("expect: allow, at: noon"), "noon", "not a time", "tue 10:00"),
        (refund("expect: allow, at: xyz 10:00"), "xyz", "not a time", "tue 10:00"),
        (refund("expect: allow, at: tue 24:00"), "tue 24", "no such day or time", "23:59"),
        (refund("expect: allow, at: 2026-02-29 10:00"), "2026-02", "no such day or time", "calendar"),
        (refund("expect: allow, at: 2026-03-29 02:30"), "2026-03", "no such time in Europe/Berlin", "an hour later"),
        (refund("expect: allow, workflow: a b"), "a b", "not the name of a workflow", "letters"),
        (refund("expect: allow, rule: smal"), "smal", "smal is no rule of agent", "did you mean small?"),
        (refund("expect: allow, rule: keys"), "keys", "keys denies", "name the rule that allows"),
        (refund("expect: deny rule_denied, rule: small"), "small", "small allows", "name the rule that denies"),
        (refund("expect: deny not_allowed, rule: small"), "small", "no rule decides not_allowed", "remove rule"),
    ],
)
def test_what_is_wrong_with_a_case_is_told_with_its_place(case: str, where: str, message: str, fix: str) -> None:
    (error,) = errors_of(case)
    assert (error.file, error.line, error.column) == ("acme.yaml", LINE, 5 + case.index(where))
    assert message in error.message
    assert fix in error.fix


def test_an_empty_list_of_tests_is_refused() -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy({"acme.yaml": BASE.replace("tests:\n", "tests: []\n").encode()})
    assert "an empty list" in caught.value.errors[0].message


def test_a_mistake_elsewhere_is_not_told_again_for_each_test_of_it() -> None:
    text = (BASE + GOOD).replace("int(body.amount) <= 100", "int(body.amount) <= ").encode()
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy({"acme.yaml": text})
    assert [error.line for error in caught.value.errors] == [13]


def test_a_stored_policy_has_its_tests_and_checks_them_again() -> None:
    source = parse_policy({"acme.yaml": (BASE + GOOD).encode()})
    policy = compile_policy(source)
    again = PolicySet.from_bundle(policy.bundle)
    assert (again.digest, again.bundle) == (policy.digest, policy.bundle)
    without = compile_policy(parse_policy({"acme.yaml": BASE.removesuffix("tests:\n").encode()}))
    assert without.digest != policy.digest
    assert b"tests" not in without.bundle
    with pytest.raises(PolicyInvalid, match="agnet"):
        PolicySet.from_bundle(policy.bundle.replace(b'"account":"agent"', b'"account":"agnet"'))


def test_times_are_those_of_the_policys_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert moment("2026-07-01 10:00", berlin) == datetime(2026, 7, 1, 8, tzinfo=UTC)
    assert moment("sun 23:59", berlin) == datetime(2026, 1, 11, 22, 59, tzinfo=UTC)
    assert moment("2026-10-25 02:30", berlin) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "the first of the two"


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
LEAVES = st.one_of(st.integers(-(10**15), 10**15), st.booleans(), TEXT)
NAMES = st.text("abcdefghij", min_size=1, max_size=5)


@given(
    st.dictionaries(NAMES, st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=8), max_size=4)
)
def test_a_body_as_a_mapping_is_what_the_rules_read(value: dict[str, object]) -> None:
    sent = parse_json_body(value).encode()
    assert read_content((JSON.encode(),), sent).value == value
    assert parse_json_body(sent.decode()) == sent.decode()
    assert json.loads(sent) == value


PLAIN = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=20)


@given(
    st.dictionaries(
        NAMES,
        st.one_of(
            PLAIN, st.lists(PLAIN, min_size=1, max_size=3), st.dictionaries(NAMES, PLAIN, min_size=1, max_size=3)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_form_as_a_mapping_is_what_the_rules_read(value: dict[str, object]) -> None:
    assert read_content((FORM.encode(),), parse_form_body(value).encode()).value == value


def test_every_code_that_may_be_expected_can_come() -> None:
    """The list has no code that no case could ever meet: the passing cases above have each."""
    assert {found[1] for case in PASSING if (found := re.search(r"deny (\w+)", case))} == set(CODES)


def test_the_order_of_cases_changes_nothing() -> None:
    cases = (refund("body: {amount: 1}, expect: allow"), refund("expect: allow"), refund("body: 1, expect: allow"))
    reports = [run(*order) for order in permutations(cases)]
    assert {report.passed for report in reports} == {1}
    assert len({report.coverage for report in reports}) == 1
