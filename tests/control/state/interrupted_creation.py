"""A program for the crash tests: makes a state and dies at the Nth call that changes the disk, for every N.

    interrupted_creation.py FOLDER

Each attempt runs in a fork of this process, which has no threads. After each death the folder must open as a whole
state. Prints the number of deaths survived.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from control.state import State
from credentials.actor import Actor
from credentials.secret import Secret
from ledger import Trust, verify

STEPS = ("fsync", "fdatasync", "link", "unlink", "rename", "replace", "mkdir", "pwrite", "ftruncate")


def die_at(number: int) -> None:
    """The process ends without cleaning up, just before the `number`th step."""
    left = [number]

    def deadly(step: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: Any, **named: Any) -> object:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return step(*arguments, **named)

        return counted

    for name in STEPS:
        setattr(os, name, deadly(getattr(os, name)))


def in_a_fork(action: Callable[[], None]) -> int:
    """The exit code of a child that does it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def make(folder: Path, number: int) -> None:
    """Makes the state, or dies."""
    die_at(number)
    State.open(folder, create=True).close()


def use(folder: Path) -> None:
    """The state is whole: it opens, works, opens again and verifies."""
    actor = Actor("uid", "0", "root")
    with State.open(folder, create=True) as state:
        state.set_secret("acme", "s", Secret("k"), actor)
    with State.open(folder, create=False) as state:
        held = state.secret("acme", "s")
        if held is None or held[0].reveal() != b"k":
            raise AssertionError("the secret is gone")
    report = verify(folder / "ledger", Trust.parse((folder / "trust.policy").read_text()))
    if report.exit_code != 0:
        raise AssertionError(report.findings)


def main(base: Path) -> None:
    """See the module's text."""
    number = 0
    while True:
        number += 1
        folder = base / str(number)
        code = in_a_fork(lambda: make(folder, number))  # noqa: B023
        if code == 0:
            print(number - 1)
            return
        if code != 9 or in_a_fork(lambda: use(folder)) != 0:  # noqa: B023
            raise SystemExit(f"died at step {number}: the state is not whole")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
