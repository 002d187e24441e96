"""`exeat token`: agents' credentials. One is read from standard input and shown only when asked for."""

import sys
from datetime import UTC, datetime

import click

from control.cli.connect import operations
from control.cli.durations import Duration
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options, say
from control.codec import to_json
from control.operations import TokenIssued, TokenRequest
from credentials.secret import Secret, SecretRefused


@click.group(short_help="Issue, renew and inspect agents' credentials.")
def token() -> None:
    """Issue, renew and inspect agents' credentials."""


@token.command("issue")
@click.argument("account", required=False)
@click.option("--tenant", metavar="T", help="Default: the only tenant of the policy.")
@click.option("--workflow", default="default", show_default=True, metavar="W", help="What the agent is doing.")
@click.option("--run", metavar="R", help="Join this run instead of beginning one.")
@click.option("--ttl", type=Duration(), metavar="5m", help="Default and maximum: the policy's.")
@command_options
def issue(
    invocation: Invocation, *, account: str | None, tenant: str | None, workflow: str, run: str | None, ttl: int | None
) -> None:
    """Issue a credential and print it. Whoever holds it is ACCOUNT until it expires or is revoked."""
    with operations(invocation) as on:
        _show(invocation, on.issue_token(TokenRequest(tenant, account, workflow, run, ttl)))


@token.command("renew")
@command_options
def renew(invocation: Invocation) -> None:
    """Print the next credential of the run whose present one is on standard input."""
    held = _from_stdin()
    with operations(invocation) as on:
        _show(invocation, on.renew_token(held))


@token.command("inspect")
@command_options
def inspect(invocation: Invocation) -> None:
    """Say whose the credential on standard input is and whether it is good. Exit code 1 when it is not."""
    held = _from_stdin()
    with operations(invocation) as on:
        found = on.inspect_token(held)
    rows: list[tuple[str, ...]] = [("verdict", "good" if found.good else f"{found.code}: {found.detail}")]
    if found.tenant is not None:
        rows += [
            ("account", f"{found.tenant}/{found.account}"),
            ("workflow", str(found.workflow)),
            ("run", str(found.run)),
            ("credential", str(found.credential)),
            ("epoch", str(found.epoch)),
            ("expires", _time(found.expires_at or 0)),
        ]
    invocation.answer(to_json(found), columns(rows))
    if not found.good:
        invocation.end(Exit.NO)


def _show(invocation: Invocation, issued: TokenIssued) -> None:
    shown = issued.token.reveal().decode("ascii")
    if not invocation.as_json:
        say(
            f"{issued.tenant}/{issued.account}  run {issued.run}  credential {issued.credential}  "
            f"until {_time(issued.expires_at)}"
        )
    document = {
        "token": shown,
        "tenant": issued.tenant,
        "account": issued.account,
        "workflow": issued.workflow,
        "run": issued.run,
        "credential": issued.credential,
        "epoch": issued.epoch,
        "issued_at": issued.issued_at,
        "expires_at": issued.expires_at,
    }
    invocation.answer(to_json(document), shown)


def _from_stdin() -> Secret:
    if sys.stdin.isatty():
        raise Trouble("the credential is read from standard input", "exeat token inspect < FILE", Exit.WRONG_USE)
    try:
        return Secret(sys.stdin.read(16_384).strip())
    except SecretRefused:
        raise Trouble(
            "there is no credential on standard input", "exeat token inspect < FILE", Exit.WRONG_USE
        ) from None


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
