"""What one call of a model used, from its estimate before it left to what its reply told: for its journey."""

from typing import Final

from proxy.http.response_head import ResponseHead
from proxy.usage.tap import Tap
from proxy.usage.taps import tap_for
from rules.claims import PRICE
from rules.meters.meter import MOST, ONE
from rules.meters.tokens import TOKENS
from rules.prices.estimate import Estimate
from rules.prices.tokens import Tokens

_NOTHING: Final[dict[str, int]] = {}


class Used:
    """One call that is paid by what it uses."""

    def __init__(self, estimate: Estimate) -> None:
        self.estimate = estimate
        self.tap: Tap | None = None
        """Set once the head of the reply is here."""

    @property
    def most(self) -> dict[str, int]:
        """The most that it can use, by meter, in micro-units. A price only where a book says it."""
        return self._by_meter(self.estimate.tokens, self.estimate.micros)

    @property
    def reads_body(self) -> bool:
        """Whether it is the reply's body that tells."""
        return self.estimate.usage.headers is None

    def begin(self, head: ResponseHead) -> Tap:
        """The tap that the reply's body goes past."""
        self.tap = tap = tap_for(self.estimate.usage, head)
        return tap

    def tokens(self, *, whole: bool) -> Tokens | None:
        """What it used; None where nobody said."""
        return None if self.tap is None else self.tap.tell(whole=whole)

    def told(self, *, whole: bool) -> dict[str, int]:
        """The same by meter, in micro-units; nothing where nobody said: then it is charged at its most."""
        tokens = self.tokens(whole=whole)
        return _NOTHING if tokens is None else self._by_meter(tokens.total, self.estimate.cost(tokens))

    @property
    def untold(self) -> dict[str, int]:
        """What is due where nobody said, by meter. A guess is no answer: an agent would make it small with short calls
        that tell, and then ask for long ones that do not."""
        return self._by_meter(*self.estimate.ceiling) if self.estimate.guessed else self.most

    def _by_meter(self, tokens: int, micros: int) -> dict[str, int]:
        found = {TOKENS: min(tokens * ONE, MOST)}
        if self.estimate.book is not None:
            found[PRICE] = min(micros, MOST)
        return found
