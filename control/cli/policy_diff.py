"""`exeat policy diff`: what a policy would open, close and change, before anybody applies it."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from control.cli.connect import operations
from control.cli.invocation import Exit, Invocation, Trouble, command_options
from control.cli.policy_tests import readable
from control.codec import Json, to_json
from control.operations import Refused
from rules.policy.compile import PolicySet
from rules.policy.diff import Summary, summarise
from rules.policy.source import PolicyInvalid

if TYPE_CHECKING:
    from control.operations import Operations

MAX_LINES: Final = 40
"""What of a change is shown where it is not the answer itself."""


@click.command(short_help="Say what a policy opens, closes and changes.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), metavar="PATH", help="Default: the active policy.")
@command_options
def diff(invocation: Invocation, path: Path, *, against: Path | None) -> None:
    """Say what the policy at PATH opens, closes and changes, compared with the active one. Nothing is applied.

    Exit code 0 when it judges every call as the other does and the same people answer for it, 1 when something
    differs, 3 when one of the two could not be read.
    """
    new = readable(path).compiled
    if against is not None:
        old: PolicySet | None = readable(against).compiled
    else:
        with operations(invocation) as on:
            old = active_policy(on)
    change = summarise(old, new)
    lines = list(change.lines)
    if not lines:
        same = old is not None and old.digest == new.digest
        lines = [
            "no difference" if same else "no difference in what is judged: its tests differ, or only how it is written"
        ]
    invocation.answer(change_document(old, new, change), "\n".join(lines))
    if change.lines:
        invocation.end(Exit.NO)


def active_policy(on: "Operations") -> PolicySet | None:
    """The policy that calls are judged by; None: there is none, and every call is denied.

    Ends the command with code 3 when this version cannot read it.
    """
    try:
        stored = on.policy_in_force(None)
    except Refused:
        return None
    try:
        return PolicySet.from_bundle(stored.bundle.encode("utf-8"))
    except PolicyInvalid as invalid:
        raise Trouble(
            f"the active policy cannot be read by this version: {invalid}", "Use --against PATH."
        ) from invalid


def change_lines(change: Summary) -> list[str]:
    """The lines of a change, the first of very many."""
    lines = change.lines
    more = len(lines) - MAX_LINES
    return [*lines] if more <= 0 else [*lines[:MAX_LINES], f"... and {more} more; --json has all"]


def change_document(old: PolicySet | None, new: PolicySet, change: Summary) -> dict[str, Json]:
    """The change, for programs."""
    return {
        "from": None if old is None else old.digest,
        "to": new.digest,
        "differs": bool(change.lines),
        "opens": to_json(change.opens),
        "closes": to_json(change.closes),
        "changes": to_json(change.changes),
    }
