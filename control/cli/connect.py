"""From a command to the operations: the running process if there is one, else the state itself under its lock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from control.cli.invocation import Exit, Invocation, Trouble
from control.remote import Remote

if TYPE_CHECKING:
    from control.operations import Operations

COMES_BACK_SECONDS: Final = 10.0


@contextmanager
def operations(invocation: Invocation, *, create: bool = False) -> Iterator["Operations"]:
    """The operations of an installation. `create` makes the state folder when there is none."""
    remote = Remote(invocation.state)
    if remote.answers() or _comes_back(remote):
        yield remote
        return
    # Imported only now: the state brings SQLite, cryptography and the ledger with it.
    from control.local import open_local  # noqa: PLC0415

    with open_local(invocation.state, create=create) as local:
        yield local


def _comes_back(remote: Remote) -> bool:
    """Workers are served, so the process that answers operators is being started again: it is waited for.

    A stop order that is given in that second must not fail because of it.
    """
    deadline = time.monotonic() + COMES_BACK_SECONDS
    while remote.ledger_is_written():
        if remote.answers():
            return True
        if time.monotonic() > deadline:
            raise Trouble(
                "workers run, but the process that answers operators does not come back", "Look at the log of exeat up."
            )
        time.sleep(0.05)
    return False


def the_tenant(on: "Operations", named: str | None) -> str:
    """The tenant that was named, or the only one of the policy."""
    if named is not None:
        return named
    tenants = on.status().tenants
    if len(tenants) == 1:
        return tenants[0]
    if not tenants:
        raise Trouble("no policy is active, so no tenant is known", "Name it: --tenant NAME", Exit.WRONG_USE)
    raise Trouble(f"the policy has {len(tenants)} tenants", f"Name one: --tenant {tenants[0]}", Exit.WRONG_USE)
