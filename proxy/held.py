"""Bytes of request bodies, and of answers that are judged whole, in memory: counted in all and for each account.

Each body has a bound of its own; this is the bound on all of them together. An account that has its share is told to
wait, before it could take what others need. Belongs to the proxy's event loop.
"""

from proxy.http.errors import RequestRefused
from proxy.turns import Key
from rules.codes import Code


class HeldBytes:
    """What is held now."""

    def __init__(self, *, in_all: int, per_account: int) -> None:
        self._in_all = in_all
        self._per_account = per_account
        self._of: dict[Key, int] = {}
        self.total = 0
        """Bytes held now."""

    def of(self, tenant: str, account: str) -> "Held":
        """What one call holds: nothing yet."""
        return Held(self, Key(tenant, account))

    def take(self, key: Key, count: int) -> None:
        """So many more are held. Raises `RequestRefused` where there is no room for them; then they are not."""
        mine = self._of.get(key, 0) + count
        if mine > self._per_account:
            raise RequestRefused(Code.OVERLOADED, "this account has too many bodies in flight")
        if self.total + count > self._in_all:
            raise RequestRefused(Code.OVERLOADED, "too many bodies are in flight")
        self._of[key] = mine
        self.total += count

    def give_back(self, key: Key, count: int) -> None:
        """So many are held no longer."""
        left = self._of[key] - count
        if left:
            self._of[key] = left
        else:
            del self._of[key]
        self.total -= count


class Held:
    """What one call holds. Give it back on every path."""

    __slots__ = ("_all", "_count", "_key")

    def __init__(self, of_all: HeldBytes, key: Key) -> None:
        self._all = of_all
        self._key = key
        self._count = 0

    @property
    def count(self) -> int:
        """Bytes held now."""
        return self._count

    def resize(self, count: int) -> None:
        """So many bytes are held. Raises `RequestRefused` where there is no room for more."""
        if count > self._count:
            self._all.take(self._key, count - self._count)
        elif count < self._count:
            self._all.give_back(self._key, self._count - count)
        self._count = count

    def give_back(self) -> None:
        """Nothing is held. Idempotent."""
        self.resize(0)
