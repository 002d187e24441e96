"""What holds for every policy and every call."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentials.principal import Principal
from rules.call import Call, Facts
from rules.codes import Code
from rules.decide import decide
from rules.decision import Allowed, Denied, Reason
from rules.guards import GUARDS
from rules.guards.verdict import Denies, Guard, Permits
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy

HEAD = """\
exeat: 1
tenant: acme
timezone: America/St_Johns
connections:
  x: {host: x.example, price: 0.5 USD}
  y: {host: y.example}
accounts:
  agent:
    owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}
    limits: {concurrency: 1, spend: [{meter: price, max: 1 USD, per: day}], rate: [{connection: "*", max: 1, per: day}]}
    rules:
"""
NOW = datetime(2010, 11, 7, 2, 30, tzinfo=UTC)

targets = st.builds(
    lambda connection, methods, path: f'{{connection: "{connection}", {methods}path: "{path}"}}',
    st.sampled_from(["x", "y", "*"]),
    st.sampled_from(["", "methods: [GET], ", "methods: [GET, DELETE], "]),
    st.sampled_from(["/", "/a", "/a/", "/{p}", "/a/{p}", "/a/**", "/**", "/{p}/b", "/%61/b"]),
)
rules = st.lists(st.tuples(st.sampled_from(["allow", "deny"]), targets), max_size=8)
paths = st.sampled_from(
    ["/", "/a", "/a/", "/b", "/a/b", "/%61/b", "/a/b/c", "//", "/a/../b", "/a%2fb", "", "*", "/é", "/%"]
)
calls = st.builds(
    Call,
    id=st.just("c_1"),
    principal=st.builds(
        Principal,
        tenant=st.sampled_from(["acme", "acme", "acme", "globex", "-"]),
        account=st.sampled_from(["agent", "agent", "agent", "ghost", ""]),
        workflow=st.just("w"),
        run=st.just("r"),
        credential=st.just("j"),
        epoch=st.just(0),
        issued_at=st.just(0),
        expires_at=st.just(0),
    ),
    scheme=st.sampled_from(["https", "https", "http"]),
    host=st.sampled_from(["x.example", "y.example", "z.example"]),
    port=st.sampled_from([443, 443, 80]),
    method=st.sampled_from(["GET", "DELETE", "POST", "get", ""]),
    path=paths,
    query=st.just(""),
)


def policy_of(written: list[tuple[str, str]]) -> PolicySet:
    lines = [f"      - {{id: r{i}, {verb}: {target}}}\n" for i, (verb, target) in enumerate(written)]
    text = HEAD + "".join(lines) if lines else HEAD.replace("    rules:\n", "")
    return compile_policy(parse_policy({"acme.yaml": text.encode()}))


def facts_of(policy: PolicySet | None, call: Call) -> Facts:
    tenant = None if policy is None else policy.tenants["acme"]
    connection = None if tenant is None else tenant.connection_for(call.scheme, call.host, call.port)
    return Facts(tenant, connection, NOW)


@given(rules, st.lists(st.tuples(calls, st.permutations(GUARDS)), min_size=1, max_size=20))
def test_no_order_of_the_guards_changes_whether_a_call_is_allowed(
    written: list[tuple[str, str]], asked: list[tuple[Call, list[Guard]]]
) -> None:
    policy = policy_of(written)
    for call, order in asked:
        facts = facts_of(policy, call)
        assert type(decide(call, facts, tuple(order))) is type(decide(call, facts))


@given(rules, targets, calls)
def test_adding_a_deny_rule_never_allows(written: list[tuple[str, str]], target: str, call: Call) -> None:
    before, after = policy_of(written), policy_of([*written, ("deny", target)])
    if isinstance(decide(call, facts_of(before, call)), Denied):
        assert isinstance(decide(call, facts_of(after, call)), Denied)


@given(rules, targets, calls)
def test_adding_an_allow_rule_never_undoes_a_deny_rule(written: list[tuple[str, str]], target: str, call: Call) -> None:
    before, after = policy_of(written), policy_of([*written, ("allow", target)])
    first = decide(call, facts_of(before, call))
    if isinstance(first, Denied) and first.reasons[0].code is not Code.NOT_ALLOWED:
        second = decide(call, facts_of(after, call))
        assert isinstance(second, Denied)
        assert second.reasons == first.reasons


@given(rules, calls)
def test_a_restored_policy_decides_the_same(written: list[tuple[str, str]], call: Call) -> None:
    policy = policy_of(written)
    restored = PolicySet.from_bundle(policy.bundle)
    assert decide(call, facts_of(restored, call)) == decide(call, facts_of(policy, call))


@given(rules, calls, st.booleans(), st.sampled_from(["x", "y", None]))
def test_decide_always_answers_and_never_without_a_reason(
    written: list[tuple[str, str]], call: Call, with_policy: bool, mixed_up: str | None
) -> None:
    policy = policy_of(written) if with_policy else None
    facts = facts_of(policy, call)
    if policy is not None and mixed_up is not None:
        facts = replace(facts, connection=policy.tenants["acme"].connections[mixed_up])
    match decide(call, facts):
        case Allowed() as allowed:
            assert policy is not None
            assert allowed.rules
            assert allowed.policy == policy.digest
            assert call.principal.tenant == "acme"
            assert facts.connection is not None
            assert facts.connection.host == call.host
            assert all(claim.key[:2] == ("acme", "agent") for claim in allowed.claims)
        case Denied() as denied:
            assert denied.reasons


ALLOWING = [("allow", '{connection: "*", path: /**}')]
PRINCIPAL = Principal("acme", "agent", "w", "r", "j", 0, 0, 0)
CALL = Call("c_1", PRINCIPAL, "https", "x.example", 443, "GET", "/a", "")


def crash(call: Call, facts: Facts) -> None:
    raise RuntimeError("a bug in a guard")


@pytest.mark.parametrize("place", range(len(GUARDS) + 1))
def test_a_guard_that_crashes_anywhere_denies(place: int) -> None:
    facts = facts_of(policy_of(ALLOWING), CALL)
    assert isinstance(decide(CALL, facts), Allowed)
    broken = (*GUARDS[:place], Guard("broken", crash), *GUARDS[place:])
    decision = decide(CALL, facts, broken)
    assert isinstance(decision, Denied)
    assert decision.reasons[0].code is Code.GUARD_FAILED
    assert "bug" not in decision.reasons[0].detail, "an error's text is not for agents"


@pytest.mark.parametrize("error", [RecursionError, MemoryError, AssertionError, StopIteration, KeyError])
def test_whatever_a_guard_raises_denies(error: type[Exception]) -> None:
    def check(call: Call, facts: Facts) -> None:
        raise error

    decision = decide(CALL, facts_of(policy_of(ALLOWING), CALL), (*GUARDS, Guard("broken", check)))
    assert isinstance(decision, Denied)


@pytest.mark.parametrize(
    "verdict", [Denies(()), Permits((), "/", ()), True, "allow", 1, Allowed(("r",), "/", (), "p")], ids=repr
)
def test_a_verdict_that_means_nothing_denies(verdict: object) -> None:
    guard = Guard("odd", lambda call, facts: verdict)  # type: ignore[arg-type, return-value]
    decision = decide(CALL, facts_of(policy_of(ALLOWING), CALL), (*GUARDS, guard))
    assert isinstance(decision, Denied)
    assert decision.reasons[0].code is Code.GUARD_FAILED


@pytest.mark.parametrize("path", ["/a", "/b", "/a/../b"])
def test_whichever_guards_come_first_the_outcome_is_one(path: str) -> None:
    """Every three of them in every order, and the others behind them in theirs and in the reverse of it."""
    policy = policy_of([*ALLOWING, ("deny", "{connection: x, path: /b}")])
    call = replace(CALL, path=path)
    facts = facts_of(policy, call)
    outcomes = set()
    for first in permutations(GUARDS, 3):
        others = tuple(guard for guard in GUARDS if guard not in first)
        outcomes |= {type(decide(call, facts, (*first, *rest))) for rest in (others, others[::-1])}
    assert outcomes == {Allowed if path == "/a" else Denied}


def test_no_guards_allow_nothing() -> None:
    assert isinstance(decide(CALL, facts_of(policy_of(ALLOWING), CALL), ()), Denied)


def test_a_permission_without_a_policy_is_no_permission() -> None:
    guard = Guard("permits", lambda call, facts: Permits(("r",), "/", ()))
    assert isinstance(decide(CALL, Facts(None, None, NOW), (guard,)), Denied)


def test_one_denial_outweighs_any_number_of_permissions_in_any_order() -> None:
    yes = Guard("yes", lambda call, facts: Permits(("r",), "/", ()))
    no = Guard("no", lambda call, facts: Denies((Reason(Code.RULE_DENIED, "no", "n"),)))
    facts = facts_of(policy_of(ALLOWING), CALL)
    for order in permutations((yes, yes, no)):
        assert isinstance(decide(CALL, facts, order), Denied)


def test_facts_with_a_naive_clock_deny_a_call_whose_budget_cannot_be_placed() -> None:
    facts = replace(facts_of(policy_of(ALLOWING), CALL), now=NOW.replace(tzinfo=None))
    decision = decide(CALL, facts)
    assert isinstance(decision, Denied)
    assert decision.reasons[0].code is Code.GUARD_FAILED
