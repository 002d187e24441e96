"""What is asked for beside the claims of a decision."""

from types import SimpleNamespace
from typing import Any, cast

from proxy.reserving import _completed
from rules.claims import PauseClaim


def test_the_same_claims_on_another_connection_ask_for_the_pause_of_that_one() -> None:
    """All calls without a limit have the same claims: none. A tenant's calls never wait for another's service."""
    nothing: Any = SimpleNamespace(claims=())
    for tenant, name in (("acme", "a"), ("globex", "a"), ("acme", "b"), ("acme", "a")):
        connection = cast("Any", SimpleNamespace(tenant=tenant, name=name, known=None))
        for _ in range(2):
            asked = _completed(cast("Any", None), cast("Any", None), connection, nothing, cast("Any", None))
            assert asked == (PauseClaim((tenant, "connection", name)),)
