"""What is asked of a reply as it passes."""

from typing import Protocol

from proxy.held import Held
from proxy.http.errors import RequestRefused
from rules.prices.tokens import Tokens


class Tap(Protocol):
    """Reads a reply's body along with its agent. Raises nothing, whatever comes."""

    @property
    def held(self) -> int:
        """Bytes kept."""
        ...

    def feed(self, data: bytes) -> None:
        """This passes now."""
        ...

    def tell(self, *, whole: bool) -> Tokens | None:
        """What was used; None where that is not known. `whole`: the reply has ended as it says it does."""
        ...

    def give_up(self) -> None:
        """There is no room to go on: it is not known, and nothing is kept."""
        ...


class Told:
    """A tap that knew from the head."""

    held = 0

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    def feed(self, data: bytes) -> None:
        """Nothing more is said."""

    def tell(self, *, whole: bool) -> Tokens | None:
        """What the head says, however the body ended."""
        return self._tokens

    def give_up(self) -> None:
        """Nothing was kept."""


class Tapped:
    """A tap at work. What it keeps is counted with what its call holds; where there is no room for that it gives up: it
    holds nothing back, and refuses nothing."""

    def __init__(self, tap: Tap, held: Held) -> None:
        self._tap = tap
        self._held = held
        self._kept = 0

    def feed(self, data: bytes) -> None:
        """This passes now."""
        self._tap.feed(data)
        try:
            self._count()
        except RequestRefused:
            self._tap.give_up()
            self._count()

    def _count(self) -> None:
        kept = self._tap.held
        if kept != self._kept:
            self._held.resize(self._held.count + kept - self._kept)
            self._kept = kept
