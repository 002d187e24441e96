"""A policy becomes the active one: the operations on policies, done to a state that this process holds."""

from typing import TYPE_CHECKING

from control import authority_life
from control.operations import PolicyApplied, PolicyFault, PolicyRefused, PolicyText, Provenance
from control.policies import text_as_folder
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
            done = state.apply_policy(
                path, actor, commit=provenance.commit, author=provenance.author, approver=provenance.approver
            )
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
        warnings=(*(str(warning) for warning in done.warnings), *_beyond_authority(state, node)),
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
