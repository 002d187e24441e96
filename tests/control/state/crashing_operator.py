"""A program for the crash tests: opens the state, does operators' work, and dies where it is told to.

crashing_operator.py FOLDER POLICY_A POLICY_B loop            works until it is killed; prints each thing done
crashing_operator.py FOLDER POLICY_A POLICY_B WHAT WHEN       dies in the middle of WHAT, `before` or `after` its
                                                              record is durable
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from control.state import State
from credentials.actor import Actor
from credentials.revocation import Target, TargetKind
from credentials.secret import Secret

ACTOR = Actor("uid", "1000", "ana")
AGENT = Target(TargetKind.ACCOUNT, "acme", "agent")


def die_at_submit(state: State, when: str) -> None:
    """The next record kills the process."""
    submit = state.ledger.submit

    def deadly(*arguments: Any) -> object:
        if when == "after":
            submit(*arguments).result(10)
        os._exit(9)

    state.ledger.submit = deadly  # type: ignore[method-assign,assignment]


def main(folder: Path, policy_a: Path, policy_b: Path, what: str, when: str = "") -> None:
    """See the module's text."""
    state = State.open(folder, create=True)
    print("open", flush=True)
    if what == "loop":
        number = 0
        while True:
            number += 1
            done = state.revoke(AGENT, f"stop {number}", ACTOR)
            print("revoked", done.epoch, done.seq, flush=True)
            applied = state.apply_policy(policy_a if number % 2 else policy_b, ACTOR)
            print("applied", applied.digest, applied.seq, flush=True)
            secret = state.set_secret("acme", "s", Secret(f"value {number}"), ACTOR)
            print("set", secret.version, secret.thumbprint, flush=True)
            restored = state.restore(AGENT, f"go {number}", ACTOR)
            print("restored", restored.epoch, restored.seq, flush=True)
            issued = state.issue_token("acme", "agent", "w", None, None, ACTOR)
            print("issued", issued.principal.credential, issued.principal.epoch, flush=True)
    works: dict[str, Callable[[], object]] = {
        "apply": lambda: state.apply_policy(policy_b, ACTOR),
        "set": lambda: state.set_secret("acme", "s", Secret("new"), ACTOR),
        "remove": lambda: state.remove_secret("acme", "s", ACTOR),
        "revoke": lambda: state.revoke(Target(TargetKind.TENANT, "acme"), "stop", ACTOR),
        "restore": lambda: state.restore(AGENT, "go", ACTOR),
        "issue": lambda: state.issue_token("acme", "agent", "w", "r", None, ACTOR),
    }
    die_at_submit(state, when)
    works[what]()
    raise SystemExit("still alive")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]), *sys.argv[4:])
