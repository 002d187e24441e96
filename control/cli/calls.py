"""`exeat calls`: what went through, read from the ledger's files; works beside a running process and without one."""

import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from control.call_lines import CALL_TYPES, CallLine, Fold, shown
from control.cli.amounts import amount
from control.cli.durations import Duration
from control.cli.invocation import Exit, Invocation, Trouble, command_options
from control.codec import to_json
from ledger.directory import segment_files
from ledger.errors import LedgerRefused
from ledger.reading import Cursor, Record, find_call
from ledger.schema import NO_CURRENCY

LINES = 20
"""As many as `tail` shows without being told."""
POLL_SECONDS = 0.25


@click.group(short_help="Follow and explain the calls in the ledger.")
def calls() -> None:
    """Follow and explain the calls in the ledger."""


@calls.command("tail")
@click.option("--follow", "-f", is_flag=True, help="Go on as calls end, until interrupted.")
@click.option("--account", metavar="ACCOUNT", help="Only this account's.")
@click.option("--tenant", metavar="T", help="Only this tenant's.")
@click.option("--since", type=Duration(), metavar="10m", help="Only calls that ended in this time.")
@click.option("--lines", "-n", type=click.IntRange(0), help=f"Only the newest. Default: {LINES} without --since.")
@command_options
def tail(
    invocation: Invocation,
    *,
    follow: bool,
    account: str | None,
    tenant: str | None,
    since: int | None,
    lines: int | None,
) -> None:
    """Show the newest calls, one line each, oldest first."""
    after = "" if since is None else _stamp(datetime.now(UTC) - timedelta(seconds=since))
    keep = lines if lines is not None else (None if since is not None else LINES)

    def wanted(found: Iterator[CallLine]) -> Iterator[CallLine]:
        for line in found:
            if line.ts >= after and account in (None, line.account) and tenant in (None, line.tenant):
                yield line

    directory = _directory(invocation)
    # From the newest segment backwards, so that the newest calls of a long ledger are shown at once.
    for start in _starts(directory):
        fold, cursor = Fold(lambda seq: _record(directory, seq)), Cursor(directory, start)
        history: deque[CallLine] = deque(maxlen=keep)
        oldest = ""
        for records in _batches(cursor):
            oldest = oldest or (records[0].ts if records else "")
            history.extend(wanted(fold.take(records)))
        if len(history) == keep or (after and oldest and oldest < after):
            break
    for line in history:
        _print(invocation, line)
    while follow:
        time.sleep(POLL_SECONDS)
        for records in _batches(cursor):
            for line in wanted(fold.take(records)):
                _print(invocation, line)


@calls.command("show")
@click.argument("call")
@command_options
def show(invocation: Invocation, call: str) -> None:
    """Show every record of a call. CALL may be shortened as long as it stays unique."""
    directory = _directory(invocation)
    found = find_call(directory, call) or _by_prefix(directory, call)
    if not found:
        raise Trouble(f"no record of a call {call}", "exeat calls tail lists the newest.", Exit.NO)
    if invocation.as_json:
        invocation.answer(to_json([record.body for record in found]), "")
        return
    fold = Fold()
    lines = list(fold.take(found)) + list(fold.still_open())
    for line in lines:
        click.echo(shown(line))
    for record in found:
        click.echo(f"\n#{record.seq}  {record.type}  {record.ts}  {record.tenant}")
        for name, value in _content(record).items():
            click.echo(f"  {name.ljust(9)} {_cost(value) if name == 'cost' else _value(value)}")


def _directory(invocation: Invocation) -> Path:
    directory = invocation.state / "ledger"
    if not directory.is_dir():
        raise Trouble(f"{directory} is no ledger", "Name the state folder: --state DIR, or start with: exeat up")
    return directory


def _starts(directory: Path) -> Iterator[int]:
    """Seqs to begin reading at: the newest segment's first, then further and further back, at last 0."""
    firsts = [first for first, _ in segment_files(directory)]
    back = 1
    while back < len(firsts):
        yield firsts[-back]
        back *= 2
    yield 0


def _record(directory: Path, seq: int) -> Record | None:
    found = Cursor(directory, seq).read(1)
    return found[0] if found and found[0].seq == seq else None


def _batches(cursor: Cursor) -> Iterator[list[Record]]:
    try:
        while records := cursor.read():
            yield [record for record in records if record.type in CALL_TYPES]
    except LedgerRefused as refused:
        raise Trouble(str(refused), "exeat ledger verify says what is wrong.") from refused


def _by_prefix(directory: Path, prefix: str) -> list[Record]:
    if len(prefix) < 4:
        raise Trouble("a call's id is too short to look for", "Give at least 4 characters.", Exit.WRONG_USE)
    matches: dict[str, list[Record]] = {}
    for records in _batches(Cursor(directory)):
        for record in records:
            name = str(record.body.get("call", ""))
            if name.startswith(prefix):
                matches.setdefault(name, []).append(record)
    if len(matches) > 1:
        raise Trouble(f"{len(matches)} calls begin with {prefix}", f"For example: {min(matches)}", Exit.WRONG_USE)
    return next(iter(matches.values()), [])


_ENVELOPE = frozenset({"v", "type", "log", "seq", "prev", "nonce", "ts", "boot", "mono_us", "tenant", "tseq", "tprev"})


def _content(record: Record) -> dict[str, object]:
    return {name: value for name, value in sorted(record.body.items()) if name not in _ENVELOPE}


def _cost(cost: object) -> str:
    """By meter, as people count: `0.10 USD  recipients 2  of acme/agent/USD/day/2026-11-25`."""
    if not isinstance(cost, dict):
        return _value(cost)
    parts = [amount(cost["micro"], "" if cost["cur"] == NO_CURRENCY else cost["cur"])]
    parts += [f"{meter} {amount(micros, '')}" for meter, micros in cost.get("units", {}).items()]
    if cost["cur"] == NO_CURRENCY:
        del parts[0]
    book = [f"by {cost['price_book']}"] if "price_book" in cost else []
    return "  ".join([*parts, *(f"of {budget}" for budget in cost["budget"]), *book])


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name}={_value(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return "-" if value is None else str(value)


def _print(invocation: Invocation, line: CallLine) -> None:
    invocation.line(to_json(line), shown(line))


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
