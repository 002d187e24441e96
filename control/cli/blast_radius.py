"""`exeat blast-radius`: the most that an account can do before a human notices, from its rules and caps alone."""

from datetime import datetime
from pathlib import Path

import click

from control.cli.actions import Moment, account_in, chosen_policy
from control.cli.invocation import Invocation, columns, command_options
from control.codec import to_json
from rules.policy import values
from rules.policy.blast_radius import BlastRadius, Money, Reach
from rules.policy.blast_radius import blast_radius as radius_of
from rules.policy.compile import PolicySet


@click.command("blast-radius", short_help="Compute the most an account can do in a day.")
@click.argument("account")
@click.option("--tenant", metavar="T", help="Default: the only tenant that has the account.")
@click.option("--as-of", "as_of", type=Moment(), metavar="DATE", help="Under the policy that was active then.")
@click.option("--policy", "path", type=click.Path(path_type=Path), help="Under this policy, applied or not.")
@command_options
def blast_radius(
    invocation: Invocation, account: str, *, tenant: str | None, as_of: datetime | None, path: Path | None
) -> None:
    """Compute the most an account can do in a day, before a human notices: hosts, calls, writes, deletes, money, whom
    it reaches.

    From rules and caps alone; no call is looked at. Every condition of an allow rule counts as met. A day is one of the
    policy's time zone. Exit code 1 when there is no such account.
    """
    policy, source = chosen_policy(invocation, as_of, path)
    tenant_policy, found = account_in(policy, account, tenant)
    radius = radius_of(tenant_policy, found)
    document = {
        "policy": policy.digest,
        "source": source,
        "blast_radius": to_json(radius),
        "unbounded": to_json(radius.unbounded),
    }
    invocation.answer(to_json(document), _text(radius, policy, source, tenant_policy.timezone.key))


def _text(radius: BlastRadius, policy: PolicySet, source: str, zone: str) -> str:
    lines = [f"{radius.tenant}/{radius.account}  {radius.stage}  policy {policy.digest[:19]} ({source})"]
    if not radius.reaches:
        return "\n".join([*lines, "can do nothing: no rule allows a call"])
    lines.append(f"in a day of {zone} ({radius.day_seconds / 3600:g} hours at the longest) at most")
    lines.append(columns([_row(reach) for reach in radius.reaches]))
    rows: list[tuple[str, ...]] = [
        ("  calls", _count(radius.calls)),
        ("  writes", _count(radius.writes)),
        ("  deletes", _count(radius.deletes)),
        ("  at once", _count(radius.at_once)),
        *(("  money", _spent(money)) for money in radius.money),
        *(("  counted", limit) for limit in radius.counted),
        ("  a stolen credential", f"works for {values.write_duration(radius.credential_seconds)}, or until revoked"),
    ]
    lines.append(columns(rows))
    if radius.unbounded:
        lines.append(f"unbounded: {', '.join(radius.unbounded)}")
    return "\n".join(lines)


def _row(reach: Reach) -> tuple[str, ...]:
    cost = "free" if reach.currency is None else _amount(reach.micros, reach.currency)
    return (
        f"  {reach.connection}",
        reach.destination,
        "/".join(reach.effects),
        f"{_count(reach.calls)} calls",
        cost,
        f"reaches {reach.recipients}",
        f"by {', '.join(reach.rules)}",
    )


def _count(bound: int | None) -> str:
    return "unbounded" if bound is None else str(bound)


def _amount(micros: int | None, currency: str) -> str:
    return f"unbounded {currency}" if micros is None else str(values.Money(micros, currency))


def _spent(money: Money) -> str:
    cap = "" if money.cap_micros is None else f" (capped at {values.Money(money.cap_micros, money.currency)})"
    return _amount(money.micros, money.currency) + cap
