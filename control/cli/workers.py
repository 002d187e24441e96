"""`exeat workers show|replace`: the processes that serve agents."""

import time
from contextlib import suppress

import click

from control.cli.connect import operations
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options, say
from control.codec import to_json
from control.fleet_views import FleetShown
from control.operations import Unavailable

LOOK_SECONDS = 0.25


@click.group(short_help="Show and replace the processes that serve agents.")
def workers() -> None:
    """Show and replace the processes that serve agents (exeat up --workers N)."""


@workers.command(short_help="List the workers.")
@command_options
def show(invocation: Invocation) -> None:
    """List the workers, and whether each serves agents and acts on all that is in force."""
    with operations(invocation) as on:
        shown = on.fleet.show()
    if not shown.wanted:
        invocation.answer(to_json(shown), "one process serves agents; exeat up --workers N --redis URL has several")
        return
    rows: list[tuple[str, ...]] = [
        (one.worker, f"pid {one.pid}", "serves" if one.serves else "starts", "" if one.follows else "BEHIND")
        for one in shown.workers
    ]
    serving = sum(one.serves for one in shown.workers)
    invocation.answer(to_json(shown), "\n".join([f"{serving} of {shown.wanted} workers serve", columns(rows)]))
    if serving < shown.wanted:
        invocation.end(Exit.NO)


@workers.command(short_help="Replace the workers, one after the other, without a failed request.")
@click.option(
    "--wait",
    type=click.FloatRange(1, 3600),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until all are replaced.",
)
@click.option("--all", "everything", is_flag=True, help="The sequencer and control too, before the workers.")
@command_options
def replace(invocation: Invocation, *, wait: float, everything: bool) -> None:
    """Replace the workers, one after the other: after an upgrade, or to read the listeners' certificate anew.

    A new one serves before the old one stops; agents that are connected get one more answer each, which tells them to
    connect anew. Calls in flight go on for as long as --drain of `exeat up` says. With --all the sequencer and control
    are replaced first: calls wait for that, a second or two, and none is refused. Recorded as your act.
    """
    with operations(invocation) as on:
        before = on.fleet.show()
        on.fleet.replace(everything=everything)
    deadline = time.monotonic() + wait
    old = {worker.worker for worker in before.workers}
    shown, new, told = before, 0, -1
    while True:
        with suppress(Unavailable):  # control is the one that is being replaced
            with operations(invocation) as on:
                shown = on.fleet.show()
            new = sum(one.serves and one.worker not in old for one in shown.workers)
            if new != told:
                told = new
                say(f"{new} of {shown.wanted} replaced")
            if not shown.replacing:
                break
        if time.monotonic() > deadline:
            raise Trouble(f"after {wait:g} s {new} of {shown.wanted} workers are replaced", "exeat workers show")
        time.sleep(LOOK_SECONDS)
    invocation.answer(to_json(shown), _result(before, shown, new))
    if new < shown.wanted or (everything and shown.control == before.control):
        invocation.end(Exit.NO)


def _result(before: FleetShown, shown: FleetShown, new: int) -> str:
    if new < shown.wanted:
        return f"{new} of {shown.wanted} workers were replaced; the others stay as they were, the log says why"
    also = "" if shown.control == before.control else "; before them the sequencer and control"
    return f"{new} workers replaced{also}"
