"""`exeat replay`: what a policy would have made of the calls that there were."""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from control.cli.actions import Moment
from control.cli.connect import operations
from control.cli.durations import Duration
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options, counted, say
from control.cli.policy_tests import readable
from control.codec import Json
from control.replaying import Asked, Change, Example, Kind, Replayed, replay
from ledger import LedgerRefused

SINCE_SECONDS = 7 * 86_400
PROGRESS_SECONDS = 2.0


class When(click.ParamType[datetime]):
    """A duration back from now, a date or a moment."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """As the type says; fails with how to write one."""
        if isinstance(value, datetime):
            return value
        if "-" in str(value):
            return Moment().convert(value, param, ctx)
        return datetime.now(UTC) - timedelta(seconds=Duration().convert(value, param, ctx))


class Since(When):
    """A date is its first moment."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """As the type says."""
        found = super().convert(value, param, ctx)
        return found.replace(hour=0, minute=0, second=0, microsecond=0) if len(str(value)) == 10 else found


@click.command("replay", short_help="Decide recorded calls again, under a policy that is not applied yet.")
@click.option("--policy", "path", required=True, type=click.Path(path_type=Path), metavar="PATH", help="The candidate.")
@click.option("--since", type=Since(), metavar="WHEN", help="7d, 2026-11-25 or a moment. Default: 7d.")
@click.option("--until", type=When(), metavar="WHEN", help="Default: now.")
@click.option("--tenant", metavar="T", help="Only this tenant's calls.")
@click.option("--account", metavar="ACCOUNT", help="Only this account's.")
@click.option("--fail-on-drift", is_flag=True, help="Exit code 1 when anything changes or cannot be told.")
@click.option("--show-targets", is_flag=True, help="Show method, host, path and query of the examples.")
@command_options
def replay_command(
    invocation: Invocation,
    *,
    path: Path,
    since: datetime | None,
    until: datetime | None,
    tenant: str | None,
    account: str | None,
    fail_on_drift: bool,
    show_targets: bool,
) -> None:
    """Decide recorded calls again, under a policy that is not applied yet, and say what would change.

    Each call is decided on what it was decided on then, at its own time. Limits and secrets are not tried. What was
    erased, lost or is no longer kept, and a rule that reads a body that no rule read then, cannot be told.
    """
    candidate = readable(path).compiled
    ledger = invocation.state / "ledger"
    if not ledger.is_dir():
        raise Trouble(f"{ledger} is no ledger", "Name the state folder: --state DIR, or start with: exeat up")
    now = datetime.now(UTC)
    asked = Asked(since or now - timedelta(seconds=SINCE_SECONDS), until or now, tenant, account)
    if asked.since >= asked.until:
        raise Trouble("--since is not before --until", "Exchange them.", Exit.WRONG_USE)
    try:
        with operations(invocation) as on:
            found = replay(ledger, on.inputs, candidate.tenants, asked, progress())
    except LedgerRefused as refused:
        raise Trouble(str(refused), "exeat ledger verify says what is wrong.") from refused
    document = _document(found, candidate.digest, asked, show_targets=show_targets)
    invocation.answer(document, "\n".join(_lines(found, candidate.digest, show_targets=show_targets)))
    if fail_on_drift and found.drift:
        invocation.end(Exit.NO)


def progress() -> Callable[[int, int], None]:
    """Tells a person at a terminal, every few seconds, how far a long reading is."""
    told = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal told
        if time.monotonic() - told >= PROGRESS_SECONDS and sys.stderr.isatty():
            told = time.monotonic()
            say(f"{done:,} of {of:,} calls")

    return tell


def _lines(found: Replayed, digest: str, *, show_targets: bool) -> list[str]:
    counts = "  ".join(f"{change} {found.counts[change]}" for change in Change)
    lines = [f"{counted(found.calls, 'call')} under {digest[:19]}: {counts}"]
    account = ""
    for kind in _ordered(found):
        if account != (account := f"{kind.tenant}/{kind.account}"):
            lines.append(account)
        was = _said(kind.was, kind.was_rule)
        now = kind.now if kind.change is Change.UNTOLD else _said(kind.now, kind.now_rule)
        lines.append(f"  {kind.change} {found.changed[kind]}: was {was}, {now}")
        rows = [_example(example, show_targets=show_targets) for example in found.examples[kind]]
        lines.append(columns(rows, "    "))
    lines.append("Limits and secrets are not part of a replay.")
    return lines


def _said(what: str, rule: str | None) -> str:
    verdict = what if what in ("allow", "-") else f"deny {what}"
    return "not known" if what == "-" else verdict if rule is None else f"{verdict} by {rule}"


def _example(example: Example, *, show_targets: bool) -> tuple[str, ...]:
    return (example.call, example.target or "") if show_targets else (example.call,)


def _ordered(found: Replayed) -> list[Kind]:
    order = tuple(Change)
    return sorted(
        found.changed,
        key=lambda kind: (
            kind.tenant,
            kind.account,
            order.index(kind.change),
            -found.changed[kind],
            kind.now,
            kind.was,
        ),
    )


def _document(found: Replayed, digest: str, asked: Asked, *, show_targets: bool) -> Json:
    return {
        "policy": digest,
        "since": asked.since.isoformat(),
        "until": asked.until.isoformat(),
        "calls": found.calls,
        "counts": {change.name.lower(): found.counts[change] for change in Change},
        "drift": found.drift,
        "limits_tried": False,
        "changes": [
            {
                "change": kind.change.name.lower(),
                "tenant": kind.tenant,
                "account": kind.account,
                "was": None if kind.was == "-" else kind.was,
                "was_rule": kind.was_rule,
                "now": None if kind.change is Change.UNTOLD else kind.now,
                "now_rule": kind.now_rule,
                "why": kind.now if kind.change is Change.UNTOLD else None,
                "calls": found.changed[kind],
                "examples": [
                    {"call": e.call, **({"target": e.target} if show_targets else {})} for e in found.examples[kind]
                ],
            }
            for kind in _ordered(found)
        ],
    }
