"""A policy becomes the active one: the operations on policies, done to a state that this process holds."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from control import authority_life
from control.operations import PolicyApplied, PolicyFault, PolicyRefused, PolicyText, Provenance
from control.policies import text_as_folder
from control.policy_views import PolicyActivation
from control.state import State
from control.state.policies import Applied
from credentials.actor import Actor
from rules.policy.diff import summarise
from rules.policy.source import PolicyInvalid

if TYPE_CHECKING:
    from control.node import Node


def apply(text: PolicyText, provenance: Provenance, state: State, actor: Actor, node: "Node | None") -> PolicyApplied:
    """See `Operations.apply_policy`. Raises the state's errors, and `PolicyRefused`."""
    with text_as_folder(text) as path:
        try:
            done = state.apply_policy(path, actor, **asdict(provenance))
        except PolicyInvalid as invalid:
            raise _refused(invalid) from invalid
    return _applied(done, state, node)


def history(limit: int, state: State) -> tuple[PolicyActivation, ...]:
    """See `Operations.policy_history`."""
    newest = None
    shown: list[PolicyActivation] = []
    for found in state.policy_history(limit):
        newest = newest or found.number
        shown.append(
            PolicyActivation(
                number=found.number,
                digest=found.digest,
                previous=found.previous,
                at=found.at,
                by=f"{found.actor['name']} ({found.actor['kind']} {found.actor['id']})",
                seq=found.seq,
                active=found.number == newest and state.policy is not None,
                **{name: found.declared.get(name) for name in ("commit", "author", "approver", "reason")},
            )
        )
    return tuple(shown)


def roll_back(to: str | None, provenance: Provenance, state: State, actor: Actor, node: "Node | None") -> PolicyApplied:
    """See `Operations.roll_back_policy`. Raises the state's errors, and `PolicyRefused`."""
    try:
        done = state.roll_back_policy(to, actor, **asdict(provenance))
    except PolicyInvalid as invalid:
        raise _refused(invalid) from invalid
    return _applied(done, state, node)


def _refused(invalid: PolicyInvalid) -> PolicyRefused:
    return PolicyRefused(tuple(PolicyFault(e.file, e.line, e.column, e.message, e.fix) for e in invalid.errors))


def _applied(done: Applied, state: State, node: "Node | None") -> PolicyApplied:
    tenants = tuple(done.policy.tenants.values())
    change = summarise(done.replaced, done.policy)
    return PolicyApplied(
        digest=done.digest,
        previous=done.previous,
        tenants=tuple(tenant.tenant for tenant in tenants),
        accounts=sum(len(tenant.accounts) for tenant in tenants),
        connections=sum(len(tenant.connections) for tenant in tenants),
        warnings=(
            *(str(warning) for warning in done.warnings),
            *_beyond_authority(state, node),
            *(() if node is None else node.everywhere()),
        ),
        secrets_missing=state.missing_secrets(),
        seq=done.seq,
        tests=done.tests,
        opens=change.opens,
        closes=change.closes,
        changes=change.changes,
    )


def _beyond_authority(state: State, node: "Node | None") -> tuple[str, ...]:
    if node is None:
        return ()
    hosts = authority_life.policy_hosts(state.policy)
    return tuple(
        f"{host} is outside the authority's name constraints: calls to it are refused (exeat ca rotate --constrain)"
        for host in authority_life.outside(node.authorities.active.permitted, hosts)
    )
