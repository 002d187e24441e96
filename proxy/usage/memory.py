"""What calls used before, by connection and model: in memory, each process for itself, from its start."""

from collections import OrderedDict
from typing import Final

from proxy.usage.taps import NOTHING
from proxy.usage.used import Used
from rules.prices.estimate import Learned
from rules.prices.learned import seen

MAX_KNOWN: Final = 10_000
"""Numbers kept; the one that was not learned for longest goes first. Models count by the entries of price books, so an
agent cannot make new ones."""

type _Key = tuple[str, str, str, str]


class Memory:
    """Belongs to the proxy's event loop, but that large requests are estimated beside it: they only look."""

    def __init__(self) -> None:
        self._maxima: OrderedDict[_Key, int] = OrderedDict()

    def of(self, tenant: str, connection: str) -> Learned:
        """What is known of a connection's models."""

        def learned(model: str, what: str) -> int | None:
            return self._maxima.get((tenant, connection, model, what))

        return learned

    def learn(self, tenant: str, connection: str, used: Used) -> None:
        """A call has ended, and may have said what it used."""
        tokens = used.tokens(whole=True)
        if tokens is None or tokens == NOTHING:
            return  # a refused one says nothing of the next
        for what, count in (("read", tokens.read), ("written", tokens.output)):
            key = (tenant, connection, used.estimate.known_as, what)
            self._maxima[key] = seen(self._maxima.get(key), count)
            self._maxima.move_to_end(key)
            if len(self._maxima) > MAX_KNOWN:
                self._maxima.popitem(last=False)
