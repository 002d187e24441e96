"""Trials of requests that nobody sent: read by the gate's own HTTP layer, judged by its rules, and going nowhere.

A policy's tests are worth what this shares with the pipeline: the request is written as an agent would write it and
read by the same parser, so a target that the gate refuses is refused here, with the same code.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, cast

from credentials.principal import Principal
from proxy.http.errors import RequestRefused
from proxy.http.query import carries_token
from proxy.http.request import RequestHead, RequestParser
from proxy.http.target import Target, format_authority, resolve_target
from rules.call import Call, Facts
from rules.codes import Code
from rules.content.content import Value
from rules.decision import Allowed, Decision, Denied, Reason
from rules.policy.cases import Asked, Case, Expected, case_of
from rules.policy.compile import Connection, PolicySet, TenantPolicy
from rules.policy.invalid import ValueInvalid
from rules.policy.source import PolicyError, PolicySource, Written
from rules.policy.tool_cases import request_of
from rules.trial import Trial, asking_the_time, judge, rules_heard

_NO_TIME: Final = datetime(2026, 1, 6, 10, tzinfo=UTC)
"""Stands in for the time of a request that has none; a trial in which a rule asks for it counts for nothing."""
_NONE: Final[frozenset[bytes]] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case, tried."""

    tenant: str
    written: Written
    case: Case
    trial: Trial
    came: Expected
    """What a case would have to expect to pass."""
    failure: str | None
    """What is wrong; None: the case passed."""

    def error(self) -> PolicyError:
        """A case that failed, as an error of the policy."""
        message = f"the test fails: {self.case.asked}: {self.failure}"
        return PolicyError(
            self.written.file, self.written.line, self.written.column, message, "mend the rules, or what it expects"
        )


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of an account's rules its passing cases exercise."""

    tenant: str
    account: str
    rules: tuple[str, ...]
    """As written, allow rules first."""
    missed: tuple[str, ...]
    """An allow rule is exercised by a call that it lets through, a deny rule by one that it refuses."""


@dataclass(frozen=True, slots=True)
class Report:
    """All cases of a policy, tried."""

    outcomes: tuple[Outcome, ...]
    coverage: tuple[Coverage, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The cases that did not pass."""
        return tuple(outcome for outcome in self.outcomes if outcome.failure is not None)

    @property
    def passed(self) -> int:
        """How many cases did."""
        return len(self.outcomes) - len(self.failed)


def run_cases(source: PolicySource, policy: PolicySet) -> Report:
    """Every case of a policy is tried under it; each tenant's under its own part. `policy` is `source`, compiled."""
    outcomes = tuple(_outcomes(source, policy))
    return Report(outcomes, tuple(_coverage(policy, outcomes)))


def try_request(policy: TenantPolicy, asked: Asked) -> Trial:
    """What the gate would decide about this request under this policy, limits and secrets aside.

    The connection has to be one of the policy's, and a tool one that it has.
    """
    asked = _written(policy, asked)
    connection = policy.connections[asked.connection]
    facts = Facts(policy=policy, connection=connection, now=asked.at or _NO_TIME)
    try:
        head, target = _read(asked, connection)
    except RequestRefused as error:
        return _refused(None, facts, error.code, error.detail)
    call = Call(
        "c_trial",
        Principal(policy.tenant, asked.account, asked.workflow, "r_trial", "trial", 0, 0, 0),
        target.scheme,
        target.host,
        target.port,
        head.method,
        target.path,
        target.query,
    )
    types = tuple(value for name, value in head.headers if name == b"content-type")
    trial = judge(call, facts, types, asked.body, found=cast("Value", asked.found), amount=asked.amount)
    service = connection.service
    keys = _NONE if service is None else service.query_keys
    if isinstance(trial.decision, Allowed) and connection.binding is not None and carries_token(call.query, keys):
        # The egress head is refused so, once the connection's own secret is to be attached.
        return _refused(call, facts, Code.MALFORMED_REQUEST, "a token in the query beside the connection's credential")
    return trial


def _written(policy: TenantPolicy, asked: Asked) -> Asked:
    """The request that stands for a tool."""
    if asked.tool is None:
        return asked
    connections = [asked.connection] if asked.connection else sorted(policy.connections)
    for name in connections:
        known = policy.connections[name].known
        if known is not None and asked.tool.startswith((f"{known.name}.", f"{known.name}/")):
            method, target, kind, body = request_of(known, asked.tool, asked.args)
            return replace(asked, method=method, connection=name, target=target, content_type=kind, body=body)
    raise ValueInvalid(f"{asked.tool}: no connection has this tool", "see exeat catalogue list")


def _refused(call: Call | None, facts: Facts, code: Code, detail: str) -> Trial:
    digest = None if facts.policy is None else facts.policy.digest
    return Trial(call, facts, Denied((Reason(code, detail),), digest), decided=False, body_read=False)


def _read(asked: Asked, connection: Connection) -> tuple[RequestHead, Target]:
    """The request as the gate reads it. Raises `RequestRefused`."""
    authority = format_authority(connection.scheme, connection.host, connection.port)
    target = asked.target.encode("utf-8")
    tunnel = None if connection.scheme == "http" else (connection.host, connection.port)
    if tunnel is None:
        target = b"http://" + authority + target
    fields = [b"Host: " + authority]
    if asked.content_type is not None:
        fields.append(b"Content-Type: " + asked.content_type.encode("ascii"))
        fields.append(b"Content-Length: %d" % len(asked.body))
    parser = RequestParser()
    parser.feed(b"\r\n".join((asked.method.encode("ascii") + b" " + target + b" HTTP/1.1", *fields, b"", b"")))
    if parser.head is None:
        raise RequestRefused(Code.MALFORMED_REQUEST, "the request is not one")
    return parser.head, resolve_target(parser.head, tunnel=tunnel)


def _outcomes(source: PolicySource, policy: PolicySet) -> Iterator[Outcome]:
    for document in source.documents:
        tenant = policy.tenants[document.tenant]
        for written, case_document in zip(source.cases[document.tenant], document.tests or (), strict=True):
            case = case_of(case_document, tenant.timezone)
            trial = try_request(tenant, case.asked)
            came = Expected(_code(trial.decision), trial.rule)
            yield Outcome(tenant.tenant, written, case, trial, came, _failure(case, trial, came))


def _code(decision: Decision) -> Code | None:
    return decision.reasons[0].code if isinstance(decision, Denied) else None


def _failure(case: Case, trial: Trial, came: Expected) -> str | None:
    asking = asking_the_time(trial) if case.asked.at is None else None
    if asking is not None:
        return f"rule {asking} asks for the time, and the case has none (add at: tue 10:00)"
    other = [action.tool for action in trial.facts.actions if action.tool is not None]
    if case.asked.tool is not None and other and case.asked.tool not in other:
        return f"with these arguments it is another tool: {', '.join(other)}"
    decision, expected = trial.decision, case.expected
    if came.code == expected.code and expected.rule in (None, came.rule):
        return None
    why = "" if not isinstance(decision, Denied) else f" ({decision.reasons[0].detail}{_unmet(trial, came)})"
    return f"expected {expected}, came {came}{why}"


def _unmet(trial: Trial, came: Expected) -> str:
    """Which rules would have allowed it, had their conditions been true."""
    if came.code != Code.NOT_ALLOWED:
        return ""
    unmet = [heard.rule.id for heard in rules_heard(trial) if heard.allows and heard.holds is False]
    return f" Not true: the condition of {', '.join(unmet)}." if unmet else ""


def _coverage(policy: PolicySet, outcomes: tuple[Outcome, ...]) -> Iterator[Coverage]:
    allowed: set[tuple[str, str, str | None]] = set()
    denied: set[tuple[str, str, str | None]] = set()
    for outcome in outcomes:
        if outcome.failure is None:
            decided = allowed if isinstance(outcome.trial.decision, Allowed) else denied
            decided.add((outcome.tenant, outcome.case.asked.account, outcome.trial.rule))
    for tenant in policy.tenants.values():
        for name, account in tenant.accounts.items():
            # An allow rule whose condition could not be told has stopped a call too; that is not what it is for.
            kinds = ((account.allow.rules, allowed), (account.deny.rules, denied))
            missed = (r.id for rules, by in kinds for r in rules if (tenant.tenant, name, r.id) not in by)
            rules = (rule.id for rule in (*account.allow.rules, *account.deny.rules))
            yield Coverage(tenant.tenant, name, tuple(rules), tuple(missed))
