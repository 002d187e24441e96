"""`exeat ledger`: verification and reading, offline. Imports nothing of the proxy and nothing of the control side."""

import json
from pathlib import Path

import click

from control.cli.invocation import Exit, Invocation, Trouble, command_options
from ledger import (
    LedgerRefused,
    Record,
    Report,
    Trust,
    TrustInvalid,
    WrongUse,
    printable,
    read_records,
    render,
    verify,
)

MAX_FILE_BYTES = 1024 * 1024
"""A trust file has about 400 bytes, a checkpoint note with sixteen signatures below 4,000."""
_SHOWN_ELSEWHERE = frozenset(
    {"v", "type", "log", "seq", "prev", "nonce", "ts", "boot", "mono_us", "tenant", "tseq", "tprev"}
)


@click.group(short_help="Verify and read a ledger, offline.")
def ledger() -> None:
    """Verify and read a ledger, offline."""


@ledger.command("verify")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--trust", required=True, type=click.Path(path_type=Path), metavar="FILE", help="What the auditor pinned."
)
@click.option(
    "--expect-checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="A checkpoint kept elsewhere."
)
@click.option("--tenant", metavar="T", help="Add this tenant's own figures.")
@click.option("--rung", type=click.IntRange(0, 4), help="Demand this rung of anchoring, whatever the trust file says.")
@command_options
def verify_(
    invocation: Invocation,
    *,
    directory: Path,
    trust: Path,
    expect_checkpoint: Path | None,
    tenant: str | None,
    rung: int | None,
) -> None:
    """Verify the ledger in DIRECTORY against a trust file that came by another way.

    Exit code 0: intact, and anchored as demanded. 1: tampered. 2: wrong use. 3: could not run. 4: intact, but
    incomplete or not anchored as demanded.
    """
    report = _report(directory, trust, expect_checkpoint, tenant, rung)
    if invocation.as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=True))
    else:
        click.echo(render(report).rstrip("\n"))
    invocation.end(Exit(report.exit_code))


@ledger.command("show")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="First record.")
@click.option("--lines", "-n", type=click.IntRange(1), metavar="N", help="At most so many records.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this type; may be given several times.")
@click.option("--tenant", metavar="T", help="Only this tenant's.")
@command_options
def show(
    invocation: Invocation,
    *,
    directory: Path | None,
    start: int,
    lines: int | None,
    types: tuple[str, ...],
    tenant: str | None,
) -> None:
    """Show a ledger's records, one a line. DIRECTORY is the state's ledger by default. Nothing is proven by this."""
    folder = directory or invocation.state / "ledger"
    if not folder.is_dir():
        raise Trouble(f"{folder} is no ledger", "Name its directory: exeat ledger show DIRECTORY")
    shown = 0
    try:
        for record in read_records(folder, start=start, types=frozenset(types) or None):
            if tenant not in (None, record.tenant):
                continue
            click.echo(record.data.decode("utf-8") if invocation.as_json else _line(record))
            shown += 1
            if lines is not None and shown >= lines:
                break
    except (LedgerRefused, OSError) as error:
        raise Trouble(f"the ledger cannot be read: {error}", "exeat ledger verify says what is wrong.") from error


def _report(directory: Path, trust: Path, expect: Path | None, tenant: str | None, rung: int | None) -> Report:
    try:
        pinned = Trust.parse(_read(trust).decode("utf-8"))
        kept = None if expect is None else _read(expect)
        return verify(directory, pinned, expect_checkpoint=kept, tenant=tenant, rung=rung)
    except (TrustInvalid, UnicodeDecodeError) as error:
        raise Trouble(f"{trust} is no trust file: {error}", "Use the file you were given.", Exit.WRONG_USE) from error
    except WrongUse as error:
        raise Trouble(str(error), "exeat ledger verify --help", Exit.WRONG_USE) from error
    except OSError as error:
        raise Trouble(f"could not verify: {error}", "Check the path and its permissions.") from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise WrongUse(f"{path} has more than {MAX_FILE_BYTES} bytes")
    return content


def _line(record: Record) -> str:
    content = {name: value for name, value in record.body.items() if name not in _SHOWN_ELSEWHERE}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return printable(f"#{record.seq}  {record.ts}  {record.tenant}  {record.type}  {text}")
