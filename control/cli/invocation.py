"""What every command shares: where the state is, how it answers, and how it ends."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from control.codec import Json


class Exit(IntEnum):
    """Exit codes, the same for every command. `run` passes its program's code through instead."""

    YES = 0
    NO = 1
    """Denied, tampered, drift, a check that failed."""
    WRONG_USE = 2
    COULD_NOT = 3
    """Could not run, or could not tell."""
    INCOMPLETE = 4
    """Intact, but incomplete or not anchored as demanded."""


class Trouble(click.ClickException):
    """A command ends without doing what was asked; says what happened and how to mend it."""

    def __init__(self, message: str, cure: str = "", code: Exit = Exit.COULD_NOT) -> None:
        super().__init__(message)
        self.cure = cure
        self.code = code


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command being run."""

    state: Path
    as_json: bool

    def answer(self, document: "Json", text: str) -> None:
        """The command's answer on standard output: the document with `--json`, else the text."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        elif text:
            click.echo(text)

    def line(self, document: "Json", text: str) -> None:
        """One of many answers: a JSON text a line with `--json`, else the text."""
        click.echo(json.dumps(document, ensure_ascii=False) if self.as_json else text)

    def end(self, code: Exit) -> NoReturn:
        """The command is over with this code."""
        raise click.exceptions.Exit(int(code))


def default_state() -> Path:
    """`$EXEAT_STATE`, else `$XDG_STATE_HOME/exeat`, else `~/.local/state/exeat`."""
    if named := os.environ.get("EXEAT_STATE"):
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME")
    # XDG base directory specification: a relative path in the variable is invalid and ignored.
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "exeat"


def command_options[**P, R](function: Callable[P, R]) -> Callable[..., R]:
    """Adds `--state` and `--json`, and hands the function an `Invocation` first."""

    def invoke(*args: Any, state: Path | None, as_json: bool, **options: Any) -> R:
        context = click.get_current_context()
        invocation = Invocation((state or default_state()).absolute(), as_json)
        context.obj = invocation
        return function(invocation, *args, **options)  # type: ignore[arg-type]  # click passes options by name

    invoke.__name__ = getattr(function, "__name__", "invoke")
    invoke.__doc__ = function.__doc__
    invoke.__click_params__ = list(getattr(function, "__click_params__", []))  # type: ignore[attr-defined]
    with_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(invoke)
    return click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="The state folder. Default: $EXEAT_STATE, else $XDG_STATE_HOME/exeat, else ~/.local/state/exeat.",
    )(with_json)


def say(text: str) -> None:
    """A line for the person at the terminal, on standard error, beside the answer."""
    print(f"exeat: {text}", file=sys.stderr, flush=True)  # noqa: T201


def counted(number: int, noun: str) -> str:
    """`1 tenant`, `2 tenants`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def columns(rows: list[tuple[str, ...]], indent: str = "") -> str:
    """The rows as aligned text."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(indent + line for line in lines)
