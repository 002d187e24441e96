"""What calls used before, by connection and model: in memory, each process for itself, from its start."""

from collections import OrderedDict
from typing import Final

from proxy.usage.taps import NOTHING
from rules.prices.estimate import Estimate, Learned
from rules.prices.learned import seen
from rules.prices.tokens import Tokens

MAX_KNOWN: Final = 10_000
"""Numbers kept; the one that was not needed for longest goes first. Models count by the entries of price books, so an
agent cannot make new ones."""

type _Key = tuple[str, str, str, str]


class Memory:
    """Belongs to the proxy's event loop."""

    def __init__(self) -> None:
        self._maxima: OrderedDict[_Key, int] = OrderedDict()

    def of(self, tenant: str, connection: str) -> Learned:
        """What is known of a connection's models."""

        def learned(model: str, what: str) -> int | None:
            key = (tenant, connection, model, what)
            found = self._maxima.get(key)
            if found is not None:
                self._maxima.move_to_end(key)
            return found

        return learned

    def learn(self, tenant: str, connection: str, estimate: Estimate, tokens: Tokens) -> None:
        """A call used so much."""
        if tokens == NOTHING:
            return  # it was refused: that says nothing of the next one
        for what, count in (("read", tokens.read), ("written", tokens.output)):
            key = (tenant, connection, estimate.known_as, what)
            self._maxima[key] = seen(self._maxima.get(key), count)
            self._maxima.move_to_end(key)
            if len(self._maxima) > MAX_KNOWN:
                self._maxima.popitem(last=False)
