"""What a decision was made on: everything that `decide` looked at, the policy aside, as bytes that replay it.

The ledger commits to these bytes (docs/formats/decision-inputs.md). Whoever adds to `Facts` or `Call` something that a
rule can see adds it to `DecisionInputs` too, and gives `VERSION` its next number: a property test holds that a decision
is the same on what was read back.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from json.encoder import encode_basestring_ascii as _text
from typing import Final, cast

from credentials.principal import Principal
from rules.call import Call, Facts
from rules.codes import Code
from rules.content.content import NOTHING, Content, Value, says_form
from rules.content.refused import ContentRefused
from rules.decide import decide
from rules.decision import Decision, Denied
from rules.lookups import answered, wanted
from rules.matching import judged_by_body
from rules.policy.compile import TenantPolicy
from rules.swift import swift
from rules.trial import understood

VERSION: Final = 2
"""The first was lines of text in commitments alone, and was never kept."""
_TEXTS: Final = ("tenant", "account", "workflow", "run", "scheme", "host", "method", "path", "query")


class InputsInvalid(ValueError):
    """These bytes are no decision inputs of a version that this program knows. Nothing can be told from them."""


class Body(StrEnum):
    """What was known of the request's body when the call was decided."""

    ABSENT = "absent"
    """There was none."""
    UNREAD = "unread"
    """There was one, and no rule asked for it."""
    READ = "read"
    REFUSED = "refused"
    """A rule asked for it, and it could not be read in exactly one way: the call was refused for that."""


@swift
@dataclass(frozen=True, slots=True)
class DecisionInputs:
    """One call as it was decided. No credential is in it, and no secret but what the request itself has."""

    tenant: str
    account: str
    workflow: str
    run: str
    scheme: str
    host: str
    port: int
    method: str
    path: str
    query: str
    now: datetime
    """Aware UTC."""
    content_types: tuple[str, ...]
    """The Content-Type fields as they came, bytes as Latin-1."""
    body: Body
    content: Content | None = None
    """The body's value; only where it was read."""
    changed: tuple[str, ...] = ()
    """Tools whose definition was another than the accepted one, sorted."""
    asked: bool = False
    """Whether the service was asked for what the request does not say."""
    found: Value = None
    """What it said; None where it did not know, or was not asked."""

    @classmethod
    def of(cls, call: Call, facts: Facts, content_types: tuple[bytes, ...], body: Body) -> "DecisionInputs":
        """The inputs of a decision on this call and these facts."""
        principal = call.principal
        return cls(
            principal.tenant, principal.account, principal.workflow, principal.run, call.scheme, call.host, call.port,
            call.method, call.path, call.query, facts.now, tuple(value.decode("latin-1") for value in content_types),
            body, facts.content, tuple(sorted(facts.changed)), facts.asked, facts.found,
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """The one spelling of these inputs: JSON without white space, members in this order, ASCII.

        The body's members stay in the order in which they came, for a condition can see it. A double is written as the
        shortest text that reads as the same double, and always with a point or an exponent.
        """
        # By hand, in two thirds of the time that an encoder takes: it is done for every call, on the loop.
        value = "" if self.content is None else f',"value":{_ENCODER.encode(self.content.value)}'
        types = ",".join([_text(one) for one in self.content_types])
        changed = ",".join([_text(one) for one in self.changed])
        asked = "true" if self.asked else "false"
        found = "null" if self.found is None else _ENCODER.encode(self.found)
        return (
            f'{{"inputs":{VERSION},"tenant":{_text(self.tenant)},"account":{_text(self.account)},'
            f'"workflow":{_text(self.workflow)},"run":{_text(self.run)},"scheme":{_text(self.scheme)},'
            f'"host":{_text(self.host)},"port":{self.port},"method":{_text(self.method)},"path":{_text(self.path)},'
            f'"query":{_text(self.query)},"now":"{self.now.isoformat(timespec="microseconds")}",'
            f'"content_types":[{types}],"body":{{"state":"{self.body}"{value}}},"changed":[{changed}],'
            f'"lookup":{{"asked":{asked},"found":{found}}}}}'
        ).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> "DecisionInputs":
        """The inputs whose bytes these are, exactly. Raises `InputsInvalid`."""
        try:
            inputs = _parsed(json.loads(data.decode("ascii")))
            written = inputs.to_bytes()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InputsInvalid):
                raise
            raise InputsInvalid("these are no decision inputs") from error
        # As in the ledger: bytes that differ from what is written are not it, so no two readers see two values.
        if written != data:
            raise InputsInvalid("these are no decision inputs as they are written")
        return inputs

    def call_and_facts(self, policy: TenantPolicy | None, call: str = "c_replayed") -> tuple[Call, Facts]:
        """What `decide` takes, under a policy of the tenant. The call's id decides nothing."""
        principal = Principal(self.tenant, self.account, self.workflow, self.run, "replayed", 0, 0, 0)
        asked = Call(call, principal, self.scheme, self.host, self.port, self.method, self.path, self.query)
        connection = None if policy is None else policy.connection_for(self.scheme, self.host, self.port)
        return asked, Facts(
            policy=policy, connection=connection, now=self.now, content=self.content, changed=frozenset(self.changed)
        )


@dataclass(frozen=True, slots=True)
class Again:
    """A call that was decided again, and the facts that it was decided on."""

    call: Call
    facts: Facts
    decision: Decision


def decide_again(inputs: DecisionInputs, policy: TenantPolicy | None) -> Decision | None:
    """What the gate would decide under this policy; None: that cannot be told, for a rule reads what was not kept.

    Pure, never raises. Limits and secrets are no part of a decision.
    """
    again = judge_again(inputs, policy)
    return None if again is None else again.decision


def judge_again(inputs: DecisionInputs, policy: TenantPolicy | None) -> Again | None:
    """As `decide_again`, with the facts."""
    call, facts = inputs.call_and_facts(policy)
    head = understood(call, replace(facts, content=None))
    if not judged_by_body(call, head):
        return _judged(inputs, call, head)
    match inputs.body:
        case Body.READ | Body.ABSENT:
            return _judged(inputs, call, understood(call, replace(facts, content=inputs.content or NOTHING)))
        case Body.REFUSED:
            return _on(call, replace(head, unreadable="the body could not be read in exactly one way"))
        case Body.UNREAD:
            # A deny rule that is true whatever the body says denies also with it.
            again = _on(call, head)
            if isinstance(again.decision, Denied) and again.decision.reasons[0].code is Code.RULE_DENIED:
                return again
            return None


def reads_unread_body(inputs: DecisionInputs, policy: TenantPolicy | None) -> bool:
    """Whether a decision cannot be told for want of the body, and not of what the service would have said."""
    call, facts = inputs.call_and_facts(policy)
    return inputs.body is Body.UNREAD and judged_by_body(call, understood(call, facts))


def _judged(inputs: DecisionInputs, call: Call, facts: Facts) -> Again | None:
    if wanted(call, facts) is None:
        return _on(call, facts)
    return _on(call, answered(facts, inputs.found)) if inputs.asked else None


def _on(call: Call, facts: Facts) -> Again:
    return Again(call, facts, decide(call, facts))


def _parsed(document: object) -> DecisionInputs:
    if not isinstance(document, dict) or type(document.get("inputs")) is not int:
        raise InputsInvalid("these are no decision inputs")
    if document["inputs"] != VERSION:
        raise InputsInvalid(f"decision inputs of version {document['inputs']}; this program knows {VERSION}")
    if type(document["port"]) is not int or not all(isinstance(document[name], str) for name in _TEXTS):
        raise InputsInvalid("these are no decision inputs")
    now = datetime.fromisoformat(document["now"])
    if now.utcoffset() != UTC.utcoffset(None):
        raise InputsInvalid("the time of decision inputs is not in UTC")
    types = document["content_types"]
    if not isinstance(types, list) or not all(isinstance(value, str) for value in types):
        raise InputsInvalid("these are no decision inputs")
    body = Body(document["body"]["state"])
    if (body is Body.READ) != ("value" in document["body"]):
        raise InputsInvalid("decision inputs have a body's value exactly where it was read")
    content = _content(document["body"]["value"], types) if body is Body.READ else None
    changed = document["changed"]
    if not isinstance(changed, list) or not all(isinstance(name, str) for name in changed):
        raise InputsInvalid("these are no decision inputs")
    asked, found = document["lookup"]["asked"], document["lookup"]["found"]
    if not isinstance(asked, bool):
        raise InputsInvalid("these are no decision inputs")
    texts = {name: str(document[name]) for name in _TEXTS}
    return DecisionInputs(
        **texts,
        port=document["port"],
        now=now,
        content_types=tuple(types),
        body=body,
        content=content,
        changed=tuple(changed),
        asked=asked,
        found=found,
    )


def _content(value: object, types: list[str]) -> Content:
    try:
        form = says_form(tuple(one.encode("latin-1") for one in types))
    except (ContentRefused, UnicodeError):
        form = False  # such a body is not read
    return Content(cast("Value", value), form)


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)
