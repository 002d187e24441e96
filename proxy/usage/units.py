"""Units that a reply tells the truth of: a request asked for at most so many rows, and got so many."""

from collections.abc import Mapping

from proxy.http.response_head import ResponseHead
from proxy.usage.counts import Impossible, read_count, read_header
from proxy.usage.finder import Finder
from proxy.usage.tap import Tap
from rules.action import Action
from rules.catalogue.usage import Path
from rules.content.media_type import read_media_type
from rules.content.refused import ContentRefused
from rules.meters.meter import ONE
from rules.prices.tokens import Tokens


class UnitsTold:
    """What one call's reply says of units. A `Tap`, too: it reads along itself."""

    def __init__(self, places: Mapping[str, Path | str]) -> None:
        self._places = places
        self._finders: dict[str, Finder] = {}
        self._known: dict[str, int] = {}

    @property
    def reads_body(self) -> bool:
        """Whether any of it stands in the reply's body."""
        return any(not isinstance(place, str) for place in self._places.values())

    @property
    def held(self) -> int:
        """Bytes of what is looked for."""
        return sum(finder.held for finder in self._finders.values())

    def begin(self, head: ResponseHead) -> Tap:
        """Reads the head, and the body as it passes. What a service refused, or failed at, tells nothing."""
        if not 200 <= head.status < 300:
            return self
        readable = _is_json(head)
        for unit, place in self._places.items():
            if not isinstance(place, str):
                if readable:
                    self._finders[unit] = Finder(place)
                continue
            try:
                self._known[unit] = read_header(head.get(place.encode()))
            except Impossible:
                continue  # unknown: charged as the request said
        return self

    def feed(self, data: bytes) -> None:
        """This passes now."""
        for finder in self._finders.values():
            finder.feed(data)

    def tell(self, *, whole: bool) -> Tokens | None:
        """Of tokens, nothing."""
        return None

    def give_up(self) -> None:
        """There is no room to go on."""
        self._finders = {}

    def told(self, *, whole: bool) -> dict[str, int]:
        """By unit, in micro-units; without those of which nobody said how many."""
        found = dict(self._known) if whole else {}
        for unit, finder in self._finders.items() if whole else ():
            data = finder.end()
            if data is None:
                continue
            try:
                found[unit] = read_count(data)
            except Impossible:
                continue
        return {unit: count * ONE for unit, count in found.items()}


def units_told(actions: tuple[Action, ...], counted: frozenset[str]) -> UnitsTold | None:
    """What the reply will say of units that limits count; None where it will not, or may be of several things."""
    if len(actions) != 1 or actions[0].known is None:
        return None
    places = {unit: place for unit, place in actions[0].known.told if unit in counted}
    return UnitsTold(places) if places else None


def _is_json(head: ResponseHead) -> bool:
    if head.bodyless or (head.get(b"content-encoding") or b"identity").lower() != b"identity":
        return False
    try:
        return read_media_type(head.get(b"content-type") or b"").is_json
    except ContentRefused:
        return False
