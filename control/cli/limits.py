"""`exeat limits show`: what is used of the limits now, and who holds what."""

from datetime import UTC, datetime

import click

from control.cli.amounts import amount_of
from control.cli.connect import operations
from control.cli.invocation import Invocation, columns, command_options
from control.codec import to_json
from control.limit_views import BudgetShown, LimitsShown


@click.group(short_help="Show what is used of the limits now.")
def limits() -> None:
    """Show what is used of the limits now."""


@limits.command(short_help="Show budgets, slots, and the calls that hold them.")
@click.option("--tenant", metavar="TENANT", help="This tenant alone.")
@click.option("--account", metavar="ACCOUNT", help="This account alone.")
@command_options
def show(invocation: Invocation, *, tenant: str | None, account: str | None) -> None:
    """Show what is used of every budget in its window, and of every concurrency limit, with the calls that hold it.

    It is asked of the store that decides: with several workers, of the shared one. Exit code 3 when it does not answer.
    """
    with operations(invocation) as on:
        shown = on.limits.show(tenant)
    if account is not None:
        shown = LimitsShown(
            tuple(one for one in shown.budgets if one.account == account),
            tuple(one for one in shown.slots if one.account == account),
            shown.more,
        )
    invocation.answer(to_json(shown), _text(shown))


def _text(shown: LimitsShown) -> str:
    parts = []
    if shown.budgets:
        rows: list[tuple[str, ...]] = [("BUDGET", "SPENT", "SET ASIDE", "LEFT", "OF", "RESETS")]
        rows += [budget_row(one) for one in shown.budgets]
        parts.append(columns(rows))
    if shown.more:
        parts.append(f"and {shown.more} that less was used of")
    if shown.slots:
        rows = [("CONCURRENCY", "TAKEN", "OF", "WAITING", "HELD BY")]
        for one in shown.slots:
            first, *others = [f"{h.call} in {h.worker}, {h.seconds:.1f} s" for h in one.holders] or ["-"]
            rows.append(
                (f"{one.tenant}/{one.account} {one.about}", str(one.taken), str(one.max), str(one.waiting), first)
            )
            rows += [("", "", "", "", other) for other in others]
        parts.append(columns(rows))
    return "\n".join(parts) or "the policy has no budget and no concurrency limit"


def budget_row(one: BudgetShown) -> tuple[str, ...]:
    """One budget: its name, what was spent, set aside and left of what, and when that ends."""
    meter = "" if one.meter == "price" else f"{one.meter} "
    by = f" {one.by}" if one.by else ""
    resets = "-" if not one.resets_at else datetime.fromtimestamp(one.resets_at, UTC).strftime("%Y-%m-%d %H:%MZ")
    amounts = (amount_of(micros, one.unit) for micros in (one.spent, one.set_aside, one.left, one.max))
    return (f"{one.tenant}/{one.account} {meter}per {one.per}{by}", *amounts, resets)
