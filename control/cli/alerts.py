"""`exeat alerts list|test`: what was raised, how destinations fare, and whether one works."""

import time

import click

from control.alerts.views import AlertShown, AlertsShown
from control.cli.connect import operations
from control.cli.invocation import Exit, Invocation, columns, command_options
from control.codec import to_json

LOOK_SECONDS = 0.1


@click.group(short_help="Show alerts, and try their destinations.")
def alerts() -> None:
    """Show alerts, and try their destinations (alerts: in the policy)."""


@alerts.command("list", short_help="List what was raised lately, and how destinations fare.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many, the newest first.")
@command_options
def list_command(invocation: Invocation, *, limit: int) -> None:
    """List what was raised lately, what became of it, and how each destination fares."""
    with operations(invocation) as on:
        shown = on.alerts.show(limit)
    invocation.answer(to_json(shown), _text(shown))


@alerts.command(short_help="Send a trial to every destination, or to one, and say what became of it.")
@click.argument("name", required=False)
@click.option(
    "--tenant",
    metavar="TENANT",
    help="To this tenant's; left out: to the one of that NAME, or to those that hear of the installation.",
)
@click.option(
    "--wait", type=click.FloatRange(0, 600), default=20.0, show_default=True, metavar="SECONDS", help="For receivers."
)
@command_options
def test(invocation: Invocation, *, name: str | None, tenant: str | None, wait: float) -> None:
    """Send an alert that says that it is a trial, and say what each destination, or the one of that NAME, made of it.

    Exit code 1 when one has not taken it in time; it is tried again like any other. On record.
    """
    with operations(invocation) as on:
        raised = on.alerts.try_out(tenant, name)
        deadline = time.monotonic() + wait
        while True:
            (found,) = [one for one in on.alerts.show(1000).alerts if one.alert == raised]
            failing = any(one.state == "waiting" and not one.attempts for one in found.deliveries)
            if not failing or time.monotonic() > deadline:
                break
            time.sleep(LOOK_SECONDS)
    invocation.answer(to_json(found), _one(found))
    if any(one.state != "delivered" for one in found.deliveries):
        invocation.end(Exit.NO)


def _text(shown: AlertsShown) -> str:
    rows: list[tuple[str, ...]] = [("DESTINATION", "DELIVERED", "WAITING", "GIVEN UP", "DROPPED", "LAST ATTEMPT")]
    rows += [
        (
            f"{one.tenant}/{one.destination}", str(one.delivered), str(one.waiting), str(one.given_up),
            str(one.dropped), one.last or "-",
        )
        for one in shown.destinations
    ]  # fmt: skip
    parts = [columns(rows) if shown.destinations else "no destination but the log (alerts: in the policy)"]
    parts += [_one(one) for one in shown.alerts]
    return "\n\n".join(parts) if shown.alerts else f"{parts[0]}\n\nnothing was raised"


def _one(one: AlertShown) -> str:
    rows: list[tuple[str, ...]] = [
        (f"{row.tenant}/{row.destination}", row.state, f"attempts {row.attempts}", row.told) for row in one.deliveries
    ]
    return f"{one.at} {one.severity} {one.kind} {one.alert}\n  {one.text}\n{columns(rows, indent='  ')}"
