"""From a command to the operations: the running process if there is one, else the state itself under its lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from control.cli.invocation import Exit, Invocation, Trouble
from control.remote import Remote

if TYPE_CHECKING:
    from control.operations import Operations


@contextmanager
def operations(invocation: Invocation, *, create: bool = False) -> Iterator["Operations"]:
    """The operations of an installation. `create` makes the state folder when there is none."""
    remote = Remote(invocation.state)
    if remote.answers():
        yield remote
        return
    # Imported only now: the state brings SQLite, cryptography and the ledger with it.
    from control.local import open_local  # noqa: PLC0415

    with open_local(invocation.state, create=create) as local:
        yield local


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
