"""`exeat resume`: a suspended account's calls are let out again."""

import click

from control.cli.connect import operations, the_tenant
from control.cli.invocation import Invocation, command_options
from control.codec import to_json
from control.suspension_views import Resumed

_REASON = click.option("--reason", required=True, metavar="TEXT", help="Recorded; for example the incident's number.")


@click.group(short_help="Let the calls of a suspended account out again.")
def resume() -> None:
    """Let the calls of a suspended account out again. Its credentials were good all the time."""


@resume.command(help="Let the calls of one account out again.")
@click.argument("name")
@click.option("--tenant", metavar="T", help="Default: the only tenant of the policy.")
@_REASON
@command_options
def account(invocation: Invocation, *, name: str, tenant: str | None, reason: str) -> None:
    """See `help`."""
    with operations(invocation) as on:
        done = on.suspensions.resume(the_tenant(on, tenant), name, reason)
    invocation.answer(to_json(done), _text(done))


@resume.command(help="Let the calls of a tenant that was suspended as a whole out again.")
@click.argument("name")
@_REASON
@command_options
def tenant(invocation: Invocation, *, name: str, reason: str) -> None:
    """See `help`."""
    with operations(invocation) as on:
        done = on.suspensions.resume(name, None, reason)
    invocation.answer(to_json(done), _text(done))


def _text(done: Resumed) -> str:
    return "\n".join((f"resumed  proof #{done.seq}", *(f"warning: {one}" for one in done.warnings)))
