"""`exeat policy history`: which policies were active, since when, by whom, and what was declared of them."""

import click

from control.cli.connect import operations
from control.cli.invocation import Invocation, columns, command_options
from control.codec import to_json
from control.policy_views import PolicyActivation


@click.command(short_help="List the activations, the newest first.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, at most.")
@command_options
def history(invocation: Invocation, *, limit: int) -> None:
    """List when which policy became the active one, by whom, with the record that proves it, and what was declared.

    The number and the digest are what `exeat policy rollback --to` takes.
    """
    with operations(invocation) as on:
        found = on.policy_history(limit)
    rows = [_row(activation) for activation in found]
    invocation.answer(to_json(found), columns(rows) or "no policy was ever active: every call is denied")


def _row(found: PolicyActivation) -> tuple[str, ...]:
    declared = (
        ("commit", found.commit),
        ("author", found.author),
        ("approver", found.approver),
        ("reason", found.reason),
    )
    return (
        f"#{found.number}",
        f"{found.at[:19]}Z",
        found.digest[:19],
        "active" if found.active else "",
        f"proof #{found.seq}",
        found.by,
        "  ".join(f"{name}: {value}" for name, value in declared if value is not None),
    )
