"""`exeat inputs`: what single calls were decided on, shown and erased."""

from datetime import UTC, datetime

import click

from control.cli.actions import Moment
from control.cli.connect import operations, the_tenant
from control.cli.invocation import Exit, Invocation, Trouble, command_options, counted
from control.codec import to_json
from control.input_views import InputsShown, InputsWanted
from control.inputs.rows import micros, moment_of


class Day(click.ParamType[datetime]):
    """A date (its first moment, UTC) or a moment with its zone."""

    name = "date"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """As the type says; fails with how to write one."""
        found = Moment().convert(value, param, ctx)
        return datetime(found.year, found.month, found.day, tzinfo=UTC) if len(str(value)) == 10 else found


@click.group(short_help="Show and erase what calls were decided on.")
def inputs() -> None:
    """Show and erase what calls were decided on.

    It is kept sealed for as long as the policy's `inputs` says, and `exeat replay` decides on it.
    """


@inputs.command("show")
@click.argument("call")
@command_options
def show(invocation: Invocation, call: str) -> None:
    """Show what a call was decided on: path, query, and the body where a rule read it.

    Exit code 1 when nothing is kept of it, or when the ledger commits to something else.
    """
    with operations(invocation) as on:
        shown = on.inputs.show(call)
    invocation.answer(to_json(shown), "\n".join(_lines(shown)))
    if shown.fits is not True:
        invocation.end(Exit.NO)


@inputs.command("erase")
@click.option("--call", metavar="CALL", help="One call's.")
@click.option("--account", metavar="ACCOUNT", help="All of an account.")
@click.option("--before", type=Day(), metavar="DATE", help="All that was decided before, 2026-11-25 or a moment.")
@click.option("--tenant", metavar="T", help="Only this tenant's. With --account, default: the only one of the policy.")
@click.option("--reason", required=True, metavar="TEXT", help="Recorded; for example the request's number.")
@command_options
def erase(
    invocation: Invocation,
    *,
    call: str | None,
    account: str | None,
    before: datetime | None,
    tenant: str | None,
    reason: str,
) -> None:
    """Erase what calls were decided on. Recorded in the ledger, with who did it and why, before it is done.

    What is given holds together: --account A --before D are A's calls before D.
    """
    if (call, account, before) == (None, None, None):
        raise Trouble("what is to be erased?", "Name it: --call, --account or --before", Exit.WRONG_USE)
    with operations(invocation) as on:
        owner = the_tenant(on, tenant) if account is not None else tenant
        wanted = InputsWanted(call, owner, account, None, None if before is None else micros(before))
        done = on.inputs.erase(wanted, reason)
    text = f"erased: {counted(done.erased, 'call')}, proof #{done.seq}" if done.erased else "nothing of that is kept"
    invocation.answer(to_json(done), text)
    if not done.erased:
        invocation.end(Exit.NO)


def _lines(shown: InputsShown) -> list[str]:
    read = shown.call
    said = "allow" if read.code is None else f"deny {read.code}"
    by = "" if read.rule is None else f" by {read.rule}"
    kept = "erased" if read.erased else "it does not open: it was moved or changed, or its day's key is gone"
    fits = {True: f"the ledger commits to it, #{shown.proof}", False: f"the ledger commits to ANOTHER, #{shown.proof}"}
    unsaid = "the ledger has no record of this call" if shown.proof is None else f"record #{shown.proof}"
    return [
        f"{read.call}  {moment_of(read.at).isoformat()}  {read.tenant}/{read.account}",
        f"  {said}{by}  policy {(read.policy or 'none')[:19]}",
        f"  {unsaid if shown.fits is None else fits[shown.fits]}",
        f"  {kept if read.inputs is None else read.inputs}",
    ]
