"""When what a condition says may change by the clock alone: the edges of the times that it asks for.

Between two edges nothing changes, so that whoever looks for the moment at which a rule says something else has to look
at a few moments and not at every minute. Days and hours have edges whatever is done with them; a time of day, and the
moment itself, only where they are compared with a literal: what else is done with them has edges that nobody knows.
"""

import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rules.conditions.variables import NOW

_TIME: Final = f"{NOW}.time"
_HOUR: Final = f"{NOW}.hour"
_MINUTES: Final = tuple(f"{minute // 60:02}:{minute % 60:02}" for minute in range(24 * 60))
_RELATION: Final = r"\s*(?:<=|>=|==|!=|<|>)\s*"
# A comparison is taken for what it looks like only where it is an operand as a whole: `now.time < '08:00' + x` is none.
_BEFORE: Final = r"(?P<before>\A|[(\[,?:]|&&|\|\|)\s*"
_AFTER: Final = r"(?=\s*(?:\)|\]|,|\?|:|&&|\|\||\Z))"
_TEXT: Final = r"(?:'([^'\\\n]*)'|\"([^\"\\\n]*)\")"
_MOMENT: Final = rf"timestamp\(\s*{_TEXT}\s*\)"


def _comparing(name: str, literal: str) -> re.Pattern[str]:
    name = re.escape(name)
    return re.compile(rf"{_BEFORE}(?:{name}{_RELATION}{literal}|{literal}{_RELATION}{name}){_AFTER}", re.ASCII)


_OF_TIME: Final = _comparing(_TIME, _TEXT)
_OF_MOMENT: Final = _comparing(NOW, _MOMENT)
_CONSTANT: Final = r"\g<before> true"


@dataclass(frozen=True, slots=True)
class Clock:
    """What a condition asks of the time."""

    minutes: frozenset[int]
    """Minutes of a local day at which it may say something else than a minute before; midnight is always one."""
    moments: frozenset[datetime]
    """Aware; at and after each of these it may, too."""
    exact: bool
    """Whether these are all of them."""
    within_minutes: bool
    """Whether it may change within a minute, too: it asks for the moment itself."""


def clock_of(text: str, needs: Callable[[str, str, bool], bool], reads: frozenset[str]) -> Clock | None:
    """The clock of a condition; None where it does not ask for the time.

    `needs(text, name, alone)`: whether a text needs a variable, `alone`: that very one and not one behind a point.
    """
    if NOW not in reads:
        return None
    edges = set(range(0, 24 * 60, 60)) if _HOUR in reads else {0}
    moments: set[datetime] = set()
    within = needs(text, NOW, True)
    if "//" in text:  # a comment may begin there, and then nothing behind it is what it looks like
        return Clock(frozenset(edges), frozenset(), not within and _TIME not in reads, within)
    # In place of what is understood stands a constant; what still needs the name afterwards is not understood.
    exact = True
    if _TIME in reads:
        edges.update(edge for found in _OF_TIME.finditer(text) for edge in _edges(_literal(found)))
        exact = not needs(_OF_TIME.sub(_CONSTANT, text), _TIME, True)
    if within:
        for found in _OF_MOMENT.finditer(text):
            moment = _moment(_literal(found))
            exact = exact and moment is not None
            if moment is not None:
                moments.add(moment)
        exact = exact and not needs(_OF_MOMENT.sub(_CONSTANT, text), NOW, True)
    return Clock(frozenset(edges), frozenset(moments), exact, within)


def _literal(found: re.Match[str]) -> str:
    return next(group for group in found.groups()[1:] if group is not None)


def _edges(literal: str) -> tuple[int, ...]:
    """The minutes at which a time of day compares otherwise with a text than a minute before."""
    first = bisect_left(_MINUTES, literal)
    return tuple(edge for edge in (first, first + 1) if edge < len(_MINUTES))


def _moment(literal: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(literal)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment
