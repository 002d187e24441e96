"""`exeat spend` and `exeat outcome`: what was spent, on what, and what for."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from control.cli.amounts import amount_of, share
from control.cli.connect import operations
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options, counted
from control.cli.limits import budget_row
from control.codec import Json, to_json
from control.limit_views import BudgetShown
from control.operations import Unavailable
from control.spending.views import OUTCOME, TOLD_APART, Amount, Seen, SpendRow, SpendShown, SpendWanted


@click.command(short_help="Show what was spent, per outcome, run and tool, and what is left.")
@click.option("--tenant", metavar="TENANT", help="This tenant alone.")
@click.option("--account", metavar="ACCOUNT", help="This account alone.")
@click.option("--workflow", metavar="WORKFLOW", help="This workflow alone.")
@click.option("--run", metavar="RUN", help="This run alone.")
@click.option("--tool", metavar="TOOL", help="Calls of this tool alone.")
@click.option("--since", metavar="DAY", default="7d", show_default=True, help="2026-11-19, or so many days: 30d.")
@click.option(
    "--by",
    type=click.Choice((*TOLD_APART, OUTCOME)),
    multiple=True,
    help="What rows are told apart by; several times for several. Default: account and workflow.",
)
@command_options
def spend(
    invocation: Invocation,
    *,
    tenant: str | None,
    account: str | None,
    workflow: str | None,
    run: str | None,
    tool: str | None,
    since: str,
    by: tuple[str, ...],
) -> None:
    """Show what calls cost, what they achieved, and what is left of the budgets.

    What counts as an outcome the policy says (workflows:), or an operator (exeat outcome). ON FAILURES is what calls
    cost that no service answered with 2xx or 3xx; ON RETRIES what further attempts of a call did. Days are those of
    the policy's time zone.
    """
    wanted = SpendWanted(tenant, account, workflow, run, tool, _day(since), by or ("account", "workflow"))
    with operations(invocation) as on:
        shown = on.spending.show(wanted)
        why = ""
        left: tuple[BudgetShown, ...] = ()
        try:
            left = tuple(one for one in on.limits.show(tenant).budgets if account in (None, one.account))
        except Unavailable as unavailable:
            why = str(unavailable)
    document: dict[str, Json] = {"since": shown.since, "by": list(wanted.by)}
    document |= {"rows": to_json(shown.rows), "left": to_json(left), "accounts": to_json(shown.accounts)}
    if why:
        document["left_unknown"] = why
    invocation.answer(document, _text(shown, wanted, left, why))
    if why:
        invocation.end(Exit.COULD_NOT)


@click.command(short_help="Say that a run has achieved what its workflow is for.")
@click.argument("run", metavar="RUN")
@click.option("--tenant", metavar="TENANT", help="Whose run it is; needed where several have one of that name.")
@click.option("--workflow", metavar="WORKFLOW", help="Its workflow; needed where the run has several.")
@click.option("--count", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="So many times.")
@click.option("--note", default="", metavar="TEXT", help="Why; stands in the record.")
@command_options
def outcome(
    invocation: Invocation, *, run: str, tenant: str | None, workflow: str | None, count: int, note: str
) -> None:
    """Say that a run has achieved what its workflow is for, so that exeat spend can say what that cost.

    Recorded as your act. Agents cannot say it of themselves. Exit code 1 for a run of which no call is on record.
    """
    with operations(invocation) as on:
        done = on.spending.declare(tenant, run, workflow, count, note)
    whose = f"{done.tenant}/{done.account}, {done.workflow}"
    invocation.answer(to_json(done), f"{counted(done.count, 'outcome')} of {done.run} ({whose})  proof #{done.seq}")


def _day(since: str) -> str:
    if since.endswith("d") and since[:-1].isdecimal() and 1 <= int(since[:-1]) <= 36_500:
        return f"{int(since[:-1])}d"
    try:
        return datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        raise Trouble(f"--since {since}: not a day", "Write 2026-11-19, or 30d.", Exit.WRONG_USE) from None


def _text(shown: SpendShown, wanted: SpendWanted, left: tuple[BudgetShown, ...], why: str) -> str:
    parts = [f"since {shown.since}"]
    if shown.rows:
        told = [name for name in (*TOLD_APART, OUTCOME) if name in wanted.by]
        heads = ("CALLS", "DENIED", "FAILED", "RUNS", "OUTCOMES", "SPENT", "PER OUTCOME", "ON FAILURES", "ON RETRIES")
        table: list[tuple[str, ...]] = [("TENANT", *(name.upper() for name in told), *heads)]
        for row in shown.rows:
            table += _rows(row, told)
        parts.append(columns(table))
        if all(row.outcomes is None for row in shown.rows):
            parts.append("no workflow here says what counts as an outcome (workflows: in the policy)")
    else:
        parts.append("no call is on record")
    if why:
        parts.append(f"what is left is not known: {why}")
    elif left:
        table = [("BUDGET", "SPENT", "SET ASIDE", "LEFT", "OF", "RESETS")]
        parts.append(columns([*table, *(budget_row(one) for one in left)]))
    if shown.accounts:
        parts.append(columns([("ACCOUNT", "LAST SEEN", "CALL", "TOOL"), *(_seen(one) for one in shown.accounts)]))
    return "\n\n".join(parts)


def _rows(row: SpendRow, told: Sequence[str]) -> list[tuple[str, ...]]:
    names = (row.tenant, *(str(getattr(row, name)) or "-" for name in told))
    outcomes = "-" if row.outcomes is None else str(row.outcomes)
    counts = (str(row.calls), str(row.denied), str(row.failed), str(row.runs), outcomes)
    first, *others = [_amount(one) for one in row.amounts] or [("-", "-", "-", "-")]
    return [(*names, *counts, *first), *((*("" for _ in (*names, *counts)), *other) for other in others)]


def _amount(one: Amount) -> tuple[str, str, str, str]:
    each = "-" if one.per_outcome is None else amount_of(one.per_outcome, one.unit)
    return amount_of(one.micros, one.unit), each, share(one.failed, one.micros), share(one.retried, one.micros)


def _seen(one: Seen) -> tuple[str, ...]:
    return (f"{one.tenant}/{one.account}", one.last_seen or "never", one.call or "-", one.tool or "-")
