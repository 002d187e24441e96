"""`exeat revoke` and `exeat restore`: stop a target now, and let it be issued new credentials again."""

from collections.abc import Callable

import click

from control.cli.connect import operations, the_tenant
from control.cli.invocation import Exit, Invocation, columns, command_options, counted
from control.cli.status import in_flight_row
from control.codec import to_json
from control.operations import Operations, Revoked, WouldRevoke, WrongUse
from credentials.revocation import RevocationRefused, Target, TargetKind

_TENANT = click.option("--tenant", metavar="T", help="Default: the only tenant of the policy.")
_REASON = click.option("--reason", required=True, metavar="TEXT", help="Recorded; for example the incident's number.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would stop; change nothing.")


@click.group(short_help="Stop a credential, an account, a tenant or everything, now.")
def revoke() -> None:
    """Stop a credential, an account, a tenant or everything, now.

    From the moment the command answers, every further request of the target is refused and what it had in flight is
    cut. Its credentials never live again.
    """


@click.group(short_help="Let a revoked target be issued new credentials.")
def restore() -> None:
    """Let a revoked target be issued new credentials. Those issued before stay dead."""


def _target(on: Operations, kind: TargetKind, tenant: str | None, name: str | None) -> Target:
    owner = tenant
    if kind is TargetKind.CREDENTIAL and name is not None and tenant is None:
        owner = on.tenant_of_credential(name)
    if kind is not TargetKind.ALL and owner is None:
        owner = the_tenant(on, tenant)
    try:
        return Target(kind, owner, name)
    except RevocationRefused as refused:
        raise WrongUse(str(refused)) from refused


def _revoke(
    invocation: Invocation, kind: TargetKind, tenant: str | None, name: str | None, reason: str, *, dry_run: bool
) -> None:
    with operations(invocation) as on:
        target = _target(on, kind, tenant, name)
        if dry_run:
            would = on.would_revoke(target)
            invocation.answer(to_json(would), describe_dry_run(would))
            return
        done = on.revoke(target, reason)
    invocation.answer(to_json(done), describe(done))
    if done.nodes_answered < done.nodes:
        # The order stands, but nobody can say yet that it was carried out everywhere.
        invocation.end(Exit.INCOMPLETE)


def describe(done: Revoked) -> str:
    """What a revocation did, on one line, and the calls it found in flight."""
    line = (
        f"epoch {done.epoch}  nodes {done.nodes_answered}/{done.nodes}  cut {done.cut}  "
        f"{done.micros / 1000:.1f} ms  proof #{done.seq}"
    )
    calls = columns([in_flight_row(call) for call in done.in_flight], indent="  ")
    return f"{line}\n{calls}" if calls else line


def describe_dry_run(would: WouldRevoke) -> str:
    """What a revocation would stop."""
    line = (
        f"would stop: {counted(would.runs, 'run')}, {counted(would.credentials, 'credential')}, "
        f"{counted(len(would.in_flight), 'call')} in flight"
    )
    calls = columns([in_flight_row(call) for call in would.in_flight], indent="  ")
    return f"{line}\n{calls}" if calls else line


def _restore(invocation: Invocation, kind: TargetKind, tenant: str | None, name: str | None, reason: str) -> None:
    with operations(invocation) as on:
        done = on.restore(_target(on, kind, tenant, name), reason)
    text = f"epoch {done.epoch}  proof #{done.seq}; credentials issued before stay dead"
    invocation.answer(to_json(done), text)


def _add(kind: TargetKind, *, named: bool, restorable: bool) -> None:
    def stop(
        invocation: Invocation, reason: str, dry_run: bool, tenant: str | None = None, name: str | None = None
    ) -> None:
        if kind is TargetKind.TENANT:
            tenant, name = name, None
        _revoke(invocation, kind, tenant, name, reason, dry_run=dry_run)

    def reopen(invocation: Invocation, reason: str, tenant: str | None = None, name: str | None = None) -> None:
        if kind is TargetKind.TENANT:
            tenant, name = name, None
        _restore(invocation, kind, tenant, name, reason)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        if named:
            function = click.argument("name")(function)
        if named and kind is not TargetKind.TENANT:
            function = _TENANT(function)
        return command_options(_REASON(function))

    what = {TargetKind.ALL: "everything", TargetKind.CREDENTIAL: "a credential, its renewals included"}
    shown = what.get(kind, f"{'an' if kind is TargetKind.ACCOUNT else 'a'} {kind.value}")
    revoke.command(kind.value, help=f"Stop {shown}, now.")(decorate(_DRY_RUN(stop)))
    if restorable:
        restore.command(kind.value, help=f"Let {shown} be issued new credentials.")(decorate(reopen))


_add(TargetKind.CREDENTIAL, named=True, restorable=False)
_add(TargetKind.ACCOUNT, named=True, restorable=True)
_add(TargetKind.TENANT, named=True, restorable=True)
_add(TargetKind.ALL, named=False, restorable=True)
