"""What counts as an outcome of a workflow: read, compiled, kept, compared, refused with a place and a cure."""

import pytest

from rules.policy.compile import PolicySet, compile_policy
from rules.policy.diff import summarise
from rules.policy.load import load_policy
from rules.policy.source import PolicyInvalid
from rules.workflows import WorkflowOutcome

BASE = """exeat: 1
tenant: acme
connections:
  stripe: {service: stripe, host: api.stripe.com, secret: stripe/x}
accounts:
  agent:
    owners: {accountable: a@acme.example, system: b@acme.example, risk: c@acme.example}
    rules: [{id: refund, allow: stripe.refund.create}]
"""


def loaded(tmp_path, workflows):
    (tmp_path / "acme.yaml").write_text(f"{BASE}workflows:\n{workflows}")
    return load_policy(tmp_path / "acme.yaml")


def test_each_form_says_what_counts(tmp_path):
    policy = compile_policy(
        loaded(
            tmp_path,
            "  refunds: {outcome: {tools: stripe.refund.create}}\n"
            "  any: {outcome: {tools: [stripe.refund.*, stripe.charge.capture], status: [201, 202]}}\n"
            "  triage: {outcome: declared}\n",
        )
    )
    flows = policy.tenants["acme"].workflows
    assert flows["refunds"].counts("stripe.refund.create", 200)
    assert flows["refunds"].counts("stripe.refund.create", 299)
    assert not flows["refunds"].counts("stripe.refund.create", 302)
    assert not flows["refunds"].counts("stripe.refund.create", 0)
    assert not flows["refunds"].counts("stripe.refund.list", 200)
    assert flows["any"].counts("stripe.refund.update", 201)
    assert not flows["any"].counts("stripe.refund.update", 200)
    assert not flows["triage"].counts("stripe.refund.create", 200)
    assert [str(flows[name]) for name in ("refunds", "triage")] == ["stripe.refund.create", "declared"]
    assert PolicySet.from_bundle(policy.bundle).tenants["acme"].workflows == flows


@pytest.mark.parametrize(
    ("written", "place", "message"),
    [
        ("{outcome: {tools: stripe.refund.creat}}", "acme.yaml:10", "there is no such tool"),
        ("{outcome: {tools: github.issue.create}}", "acme.yaml:10", "no connection here has tools of that service"),
        ("{outcome: declard}", "acme.yaml:10", "write declared, or"),
        ("{outcome: {tools: []}}", "acme.yaml:10", "an empty list"),
        ("{outcome: {tools: stripe.refund.create, status: [99]}}", "acme.yaml:10", "200"),
        ("{outcome: {}}", "acme.yaml:10", "tools"),
        ("{}", "acme.yaml:10", "outcome"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(tmp_path, written, place, message):
    with pytest.raises(PolicyInvalid) as refused:
        loaded(tmp_path, f"  refunds: {written}\n")
    assert place in str(refused.value)
    assert message in str(refused.value)


def test_a_change_is_told(tmp_path):
    before = compile_policy(loaded(tmp_path, "  refunds: {outcome: declared}\n"))
    after = compile_policy(loaded(tmp_path, "  refunds: {outcome: {tools: stripe.refund.create}}\n"))
    assert summarise(before, after).changes == ("acme: an outcome of refunds is stripe.refund.create, was declared",)
    assert WorkflowOutcome() == before.tenants["acme"].workflows["refunds"]
