"""`exeat status`: what is installed, active and in flight."""

import click

from control.cli.connect import operations
from control.cli.invocation import Invocation, columns, command_options, counted
from control.codec import to_json
from control.status_views import InFlightCall, LimitsUsed, Status, SuspensionShown


@click.command(short_help="Say what is installed, active and in flight.")
@command_options
def status(invocation: Invocation) -> None:
    """Say what is installed, active and in flight."""
    with operations(invocation) as on:
        now = on.status()
    invocation.answer(to_json(now), describe(now))


def describe(now: Status) -> str:
    """The status for people."""
    rows: list[tuple[str, ...]] = []
    if now.running:
        rows.append(("door", ", ".join(door_url(door) for door in now.listening)))
        if now.health:
            rows.append(("health", f"http://{now.health}"))
        rows.append(("process", f"{now.pid}{'  draining' if now.draining else ''}"))
    else:
        rows.append(("door", "closed: no process runs (exeat up)"))
    rows.append(("state", now.state))
    if now.policy is None:
        rows.append(("policy", "none: every call is denied (exeat policy apply)"))
    else:
        counts = ", ".join(
            (
                counted(len(now.tenants), "tenant"),
                counted(now.accounts, "account"),
                counted(now.connections, "connection"),
            )
        )
        rows.append(("policy", f"{now.policy[:19]}  {counts}"))
    rows.extend(("secret", f"missing: {name}") for name in now.secrets_missing)
    rows.extend(("warning", warning) for warning in now.warnings)
    rows.extend(("FAULT", fault) for fault in now.faults)
    rows.extend(("DEGRADED", f"{one.control}  since {one.since}  {one.why}") for one in now.degraded)
    rows.append(("epoch", str(now.epoch)))
    rows.extend(
        ("revoked", f"{order.target}  since {order.at}  epoch {order.epoch}  {order.reason}")
        for order in now.revocations
    )
    rows.extend(("SUSPENDED", f"{_place(one)}  since {one.at}  {one.reason}") for one in now.suspensions)
    if now.limits is None:
        rows.append(("limits", "cannot be asked now"))
    elif now.limits != LimitsUsed(0, 0, 0):
        near = counted(now.limits.near, "budget")
        slots = counted(now.limits.slots_taken, "slot")
        rows.append(("limits", f"{near} beyond an alert threshold, {now.limits.full} full, {slots} in use"))
    ledger = counted(now.ledger.records, "record")
    if now.ledger.lag_records:
        ledger += f", {now.ledger.lag_records} not yet durable for {now.ledger.lag_seconds:.3f} s"
    if now.ledger.halted:
        ledger += f"  HALTED: {now.ledger.halted}"
    rows.append(("ledger", ledger))
    rows.extend(("UNSAFE", switch) for switch in now.unsafe)
    text = f"Exeat {now.version}\n" + columns(rows)
    if now.in_flight:
        text += "\nin flight\n" + columns([in_flight_row(call) for call in now.in_flight], indent="  ")
    return text


def _place(one: SuspensionShown) -> str:
    return f"tenant {one.tenant}" if one.account is None else f"{one.tenant}/{one.account}"


def door_url(door: str) -> str:
    """A door of `Status.listening` as an address to type."""
    return door if door.startswith("https://") else f"http://{door}"


def in_flight_row(call: InFlightCall) -> tuple[str, ...]:
    """One call in flight, for people."""
    return (
        call.call,
        f"{call.tenant}/{call.account}",
        call.operation,
        call.phase,
        f"{call.seconds:.1f} s",
        money(call.amount_micros, call.currency),
    )


def money(micros: int, currency: str | None) -> str:
    """`0.002 USD`; empty for nothing."""
    if not micros or currency is None:
        return ""
    whole, rest = divmod(micros, 1_000_000)
    decimals = f"{rest:06d}".rstrip("0")
    return f"{whole}.{decimals:0<2} {currency}"
