"""`exeat doctor egress`: whether there is a way out that is not Exeat, tried from where the agent runs."""

import asyncio
import os
from datetime import UTC, datetime
from typing import BinaryIO

import click

from control.cli.connect import operations, the_tenant
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options
from control.egress_doctor import MAX_RESULT_BYTES, Result, for_the_ledger, parse_result, probe
from control.egress_ways import PUBLIC, Outcome, Target, parse_target
from control.operations import Act

_MARKS = {Outcome.OPEN: "OPEN", Outcome.CLOSED: "closed", Outcome.UNCLEAR: "unclear", Outcome.NOT_TRIED: "not tried"}
_CODES = {"nothing open": Exit.YES, "open": Exit.NO, "meaningless": Exit.COULD_NOT}


class TargetType(click.ParamType[Target]):
    """Where to, and how: `[KIND/]HOST:PORT`."""

    name = "target"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        if isinstance(value, Target):
            return value
        try:
            return parse_target(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(short_help="Try every way out that is not Exeat, from the agent's side.")
@click.option(
    "--target",
    "targets",
    type=TargetType(),
    multiple=True,
    metavar="[KIND/]HOST:PORT",
    help="Try this too. KIND: tcp (default), udp, dns, dns-tcp, doh, quic, icmp, name. May be given several times.",
)
@click.option("--only-targets", is_flag=True, help="Try no address, socket or name but those of --target.")
@click.option("--list", "listing", is_flag=True, help="Print the default targets and try nothing.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.05, 60),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each way is given; many are tried at once.",
)
@click.option(
    "--record",
    type=click.File("rb"),
    metavar="FILE",
    help="As an operator: put on record what a probe printed with --json (- for standard input), and try nothing.",
)
@click.option("--tenant", metavar="T", help="Whose record it is, with --record. Default: the only tenant.")
@command_options
def egress(
    invocation: Invocation,
    *,
    targets: tuple[Target, ...],
    only_targets: bool,
    listing: bool,
    timeout: float,
    record: BinaryIO | None,
    tenant: str | None,
) -> None:
    """Try every way out that is not Exeat, from where the agent runs: inside `exeat run`, its container, its namespace.

    Each way is OPEN (somebody answered), closed (the system refuses, or knows no way), unclear (no answer, or one that
    shows neither), or not tried. Nothing but that is asked of anybody: packets go to public addresses (--list), to
    name servers, gateways and sockets of this machine.

    An agent puts nothing on record. An operator does, with what the probe printed:

    exeat run --isolate -- exeat doctor egress --json | exeat doctor egress --record -

    Exit code 0: nothing was open. 1: something was. 3: Exeat itself was not reached, so the rest shows nothing.
    """
    if listing:
        invocation.answer({"targets": list(PUBLIC)}, "\n".join(PUBLIC))
        return
    if only_targets and not targets:
        raise Trouble("--only-targets names nothing to try", "Add --target HOST:PORT.", Exit.WRONG_USE)
    if record is not None:
        if targets or only_targets:
            raise Trouble("--record takes a result and tries nothing", "Give --target to the probe.", Exit.WRONG_USE)
        _record(invocation, record.read(MAX_RESULT_BYTES + 1), tenant)
        return
    if tenant is not None:
        raise Trouble("--tenant is for --record", "Leave it out: a probe belongs to nobody.", Exit.WRONG_USE)
    result = asyncio.run(probe(dict(os.environ), invocation.state, targets, defaults=not only_targets, seconds=timeout))
    invocation.answer(result.to_json(), _describe(result))  # type: ignore[arg-type]  # plain values all the way down
    invocation.end(_CODES[result.verdict])


def _record(invocation: Invocation, data: bytes, tenant: str | None) -> None:
    result = parse_result(data, datetime.now(UTC))
    if result.verdict == "meaningless":
        raise Trouble(f"nothing is recorded: Exeat was not reached there: {result.door.text}", "Mend that, then probe.")
    detail = for_the_ledger(result, data)
    with operations(invocation) as on:
        done = on.record_act(the_tenant(on, tenant), Act.EGRESS_PROBED, detail)
    invocation.answer({"seq": done.seq, "detail": {**detail}}, f"on record #{done.seq}: {_summary(result)}")
    invocation.end(_CODES[result.verdict])


def _describe(result: Result) -> str:
    """The result for people: what is open first."""
    order = list(_MARKS)
    ways = sorted(result.ways, key=lambda way: order.index(way.outcome))
    rows: list[tuple[str, ...]] = [(_MARKS[way.outcome], way.kind, way.target, way.text) for way in ways]
    door = f"Exeat: {result.door.text}"
    return "\n".join([columns(rows), door, _summary(result)])


def _summary(result: Result) -> str:
    counts = result.counted()
    said = {
        "nothing open": "nothing was open, here and now; ways that nobody thought of are not among them",
        "open": "there are ways around Exeat: docs/how-to/containment.md closes them",
        "meaningless": "Exeat itself was not reached, so this shows nothing",
    }[result.verdict]
    numbers = ", ".join(f"{counts[outcome]} {word}" for outcome, word in _MARKS.items())
    return f"{numbers}: {said}"
