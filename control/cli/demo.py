"""`exeat demo`: the whole product in a minute, on loopback, in a folder that is gone afterwards."""

import shutil
import tempfile
import time
from pathlib import Path

import click

from control.cli.invocation import Exit, Trouble
from control.demo.scenes import SceneFailed, Stage, play


@click.command(short_help="Show the whole product in a minute, on loopback.")
@click.option("--keep", is_flag=True, help="Leave the folder with state and ledger behind.")
def demo(*, keep: bool) -> None:
    """Show the whole product in a minute, on loopback: real proxy, real TLS, real clients.

    Exit code 1 when anything that is shown did not happen.
    """
    # Short, because the operators' socket lies in it.
    folder = Path(tempfile.mkdtemp(prefix="exeat-demo-"))
    began = time.monotonic()
    stage = Stage(folder, click.echo)
    try:
        click.echo("Exeat's demonstration: everything is real but the company.")
        play(stage)
    except SceneFailed as failed:
        log = folder / "up.log"
        if log.exists():
            click.echo(log.read_text(), err=True)
        raise Trouble(
            f"the demonstration failed: {failed}", "--keep leaves its folder to look at.", Exit.NO
        ) from failed
    finally:
        stage.close()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    click.echo(
        f"\nall 8 scenes happened, in {time.monotonic() - began:.0f} s" + (f"; left in {folder}" if keep else "")
    )
