"""`exeat policy explain`: why a call would be allowed or denied, guard by guard and rule by rule."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

import click

from control.cli.connect import operations
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options
from control.cli.policy_tests import readable
from control.codec import Json, to_json
from proxy.trial import try_request
from rules.conditions.variables import WEEKDAYS
from rules.decision import Allowed, Decision, Denied
from rules.openings import Opening, search
from rules.policy.cases import (
    DEFAULT_WORKFLOW,
    FORM,
    JSON,
    Asked,
    check_at,
    check_workflow,
    is_tool,
    moment,
    parse_call,
    parse_form_body,
    parse_json_body,
    stated_amount,
)
from rules.policy.compile import PolicySet, TenantPolicy
from rules.policy.invalid import ValueInvalid
from rules.policy.source import PolicyInvalid
from rules.policy.values import Money, suggest
from rules.trial import RuleHeard, Trial, guards_heard, rules_heard

_SAYS = {True: "true", False: "false", None: "cannot be told"}


@click.command(short_help="Say why a call would be allowed or denied.")
@click.argument("call", metavar="CALL")
@click.option("--as", "account", required=True, metavar="ACCOUNT", help="The service account that calls.")
@click.option("--tenant", metavar="T", help="Its tenant. Default: the policy's only one.")
@click.option(
    "--args", "args", metavar="JSON", help="What a tool is called with; an amount such as 100 USD is stated so."
)
@click.option("--body", metavar="JSON|@FILE", help="What is sent as JSON.")
@click.option("--form", metavar="FORM|@FILE", help="What is sent as a form: a=1&b=2.")
@click.option("--at", metavar="TIME", help="tue 10:00, or 2026-11-24 10:00, in the policy's time zone. Default: now.")
@click.option("--workflow", default=DEFAULT_WORKFLOW, show_default=True, metavar="W", help="What the agent is doing.")
@click.option("--policy", "path", type=click.Path(path_type=Path), metavar="PATH", help="Default: the active policy.")
@command_options
def explain(
    invocation: Invocation,
    call: str,
    *,
    account: str,
    tenant: str | None,
    args: str | None,
    body: str | None,
    form: str | None,
    at: str | None,
    workflow: str,
    path: Path | None,
) -> None:
    """Say what each guard and each rule makes of a call, and what is decided. Nothing is sent.

    CALL is a method, a connection and a path, "POST stripe /v1/refunds", or a tool: stripe.refund.create. Limits and
    secrets are not tried. Exit code 1 when the call would be denied.
    """
    policy = _tenant(_active(invocation) if path is None else readable(path).compiled, tenant)
    asked = _asked(policy, call, account, workflow, body, form, at)
    if is_tool(call):
        asked = replace(asked, **_of_tool(call, args))
    elif args is not None:
        raise Trouble("--args: CALL names no tool", "Write a tool, or --body.", Exit.WRONG_USE)
    try:
        trial = try_request(policy, asked)
    except ValueInvalid as error:
        raise Trouble(error.message, error.fix, Exit.WRONG_USE) from error
    invocation.answer(_document(asked, trial), "\n".join(_lines(asked, trial)))
    if not isinstance(trial.decision, Allowed):
        invocation.end(Exit.NO)


def _active(invocation: Invocation) -> PolicySet:
    with operations(invocation) as on:
        stored = on.policy_in_force(None)
    try:
        return PolicySet.from_bundle(stored.bundle.encode("utf-8"))
    except PolicyInvalid as invalid:
        raise Trouble(f"the active policy cannot be used by this version: {invalid}", "Apply one.") from invalid


def _tenant(policies: PolicySet, name: str | None) -> TenantPolicy:
    known = tuple(policies.tenants)
    if name is None and len(known) == 1:
        return policies.tenants[known[0]]
    if name is None:
        raise Trouble("the policy has not exactly one tenant", f"Add --tenant: {', '.join(known)}", Exit.WRONG_USE)
    if name not in policies.tenants:
        raise Trouble(f"there is no tenant {name}", suggest(name, known), Exit.WRONG_USE)
    return policies.tenants[name]


def _asked(
    policy: TenantPolicy, call: str, account: str, workflow: str, body: str | None, form: str | None, at: str | None
) -> Asked:
    if account not in policy.accounts:
        raise Trouble(f"there is no account {account}", suggest(account, tuple(policy.accounts)), Exit.WRONG_USE)
    if body is not None and form is not None:
        raise Trouble("a request has one body", "Leave out --body or --form.", Exit.WRONG_USE)
    try:
        method, connection, target = ("", "", "") if is_tool(call) else parse_call(call)
        text = None
        if body is not None:
            text = parse_json_body(_text(body))
        elif form is not None:
            text = parse_form_body(_text(form))
        when = datetime.now(UTC) if at is None else moment(check_at(at), policy.timezone)
        check_workflow(workflow)
    except ValueInvalid as error:
        raise Trouble(error.message, error.fix, Exit.WRONG_USE) from error
    if connection not in policy.connections and not is_tool(call):
        fix = suggest(connection, tuple(policy.connections))
        raise Trouble(f"there is no connection {connection}", fix, Exit.WRONG_USE)
    kind = None if text is None else JSON if body is not None else FORM
    return Asked(account, workflow, method, connection, target, kind, (text or "").encode("utf-8"), when)


class _OfTool(TypedDict):
    tool: str
    args: Mapping[str, object]
    amount: Money | None


def _of_tool(call: str, given: str | None) -> _OfTool:
    try:
        args = {} if given is None else json.loads(given)
    except ValueError:
        args = None
    if not isinstance(args, dict):
        raise Trouble("--args is no JSON object", """Write it as in '{"amount": "100 USD"}'""", Exit.WRONG_USE)
    left, amount = stated_amount(args)
    return _OfTool(tool=call, args=left, amount=amount)


def _text(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{given[1:]} cannot be read as UTF-8 text", "Check the path.", Exit.WRONG_USE) from error


def _lines(asked: Asked, trial: Trial) -> Iterator[str]:
    yield f"{asked}, at {_when(trial)}"
    sent = None if trial.call is None else f"{trial.call.path}?{trial.call.query}".removesuffix("?")
    if sent not in (None, asked.target):
        yield f"  judged as  {sent}"
    if trial.body_read:
        yield "  the body is read, for a rule asks for it"
    guards: list[tuple[str, ...]] = [(name, *_verdict(alone)) for name, alone in guards_heard(trial)]
    if guards:
        yield "guards"
        yield columns(guards, "  ")
    rules: list[tuple[str, ...]] = [_row(heard) for heard in rules_heard(trial)]
    if rules:
        yield "rules that match by connection, method and path"
        yield columns(rules, "  ")
    elif trial.decided:
        yield "no rule matches by connection, method and path"
    yield _decided(trial.decision)
    opening = _opening(trial)
    if opening is not None:
        yield f"  {opening.sentence}"


def _when(trial: Trial) -> str:
    policy = trial.facts.policy
    now = trial.facts.now.astimezone(UTC if policy is None else policy.timezone)
    return f"{WEEKDAYS[now.weekday()]} {now:%Y-%m-%d %H:%M %Z}"


def _verdict(alone: Decision | None) -> tuple[str, str]:
    if alone is None:
        return "no objection", ""
    if isinstance(alone, Allowed):
        return "allows", ", ".join(alone.rules)
    return "denies", "; ".join(f"{reason.code}: {reason.detail}" for reason in alone.reasons)


def _row(heard: RuleHeard) -> tuple[str, str, str, str]:
    condition = "" if heard.rule.when is None else f"when {' '.join(heard.rule.when.text.split())}"
    says = "" if heard.rule.when is None else _SAYS[heard.holds]
    return "allow" if heard.allows else "deny", heard.rule.id, says, condition


def _opening(trial: Trial) -> Opening | None:
    if trial.call is None or not isinstance(trial.decision, Denied):
        return None
    return search(trial.call, trial.facts, trial.decision).opening


def _decided(decision: Decision) -> str:
    if isinstance(decision, Allowed):
        return f"allow by {decision.rules[0]}; its body is {decision.body.described}"
    first = decision.reasons[0]
    by = "" if first.rule is None else f" by {first.rule}"
    return f"deny {first.code}{by}: {first.detail}"


def _document(asked: Asked, trial: Trial) -> Json:
    decision = trial.decision
    denied = () if isinstance(decision, Allowed) else decision.reasons
    opening = _opening(trial)
    return to_json(
        {
            "call": str(asked),
            "path": None if trial.call is None else trial.call.path,
            "at": trial.facts.now.isoformat(),
            "body_read": trial.body_read,
            "guards": [
                {"guard": name, "says": _verdict(alone)[0], "detail": _verdict(alone)[1]}
                for name, alone in guards_heard(trial)
            ],
            "rules": [
                {
                    "rule": heard.rule.id,
                    "kind": "allow" if heard.allows else "deny",
                    "when": None if heard.rule.when is None else heard.rule.when.text,
                    "holds": _SAYS[heard.holds],
                }
                for heard in rules_heard(trial)
            ],
            "decision": "allow" if isinstance(decision, Allowed) else "deny",
            "rule": trial.rule,
            "reasons": [{"code": r.code, "detail": r.detail, "rule": r.rule} for r in denied],
            "opens_at": None if opening is None else opening.at.isoformat(),
            "policy": decision.policy,
        }
    )
