"""Path templates of OpenAPI in the catalogue's form, and which of them would take requests of another for theirs.

In the catalogue a parameter is one whole segment. A path such as `/jobs/{id}:cancel` or `/calls/{id}.json` cannot be
written, and must not vanish silently either: its requests could fit a neighbour (`/jobs/{id}`) and be taken for that.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from rules.policy.invalid import ValueInvalid
from rules.policy.templates import PARAMETER, parse_template

_WHOLE: Final = re.compile(r"\{([A-Za-z0-9_.$-]{1,128})\}", re.ASCII)
_BRACES: Final = re.compile(r"\{[^{}]*\}")
_SAFE: Final = "%!$&'()*+,:@=;~"

type Piece = str | re.Pattern[str] | None
"""A literal, what a segment with a parameter inside looks like, or None: anything."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Which paths an OpenAPI path stands for, as far as anybody can say."""

    pieces: tuple[Piece, ...]
    open: bool = False
    """Whether anything may follow, further segments too."""

    def takes(self, other: "Shape") -> bool:
        """True where a request of the other could be taken for one of this, which is written.

        OpenAPI 3.1 section 4.8.8.2: the more concrete path is matched first. So one that is that at some segment, and
        nowhere less, keeps its requests.
        """
        mine, theirs = self.pieces, other.pieces
        if len(mine) < len(theirs) or (len(mine) > len(theirs) and not other.open):
            return False
        if not all(_meet(a, b) for a, b in zip(mine, theirs, strict=False)):
            return False
        wider = any(_rank(a) > _rank(b) for a, b in zip(mine, theirs, strict=False))
        closer = any(_rank(a) < _rank(b) for a, b in zip(mine, theirs, strict=False))
        return wider or not (closer or any(isinstance(piece, str) for piece in mine[len(theirs) :]))


def _meet(a: Piece, b: Piece) -> bool:
    if isinstance(a, str):
        return a == b if isinstance(b, str) else b is None or b.fullmatch(a) is not None
    return a is None or not isinstance(b, str) or a.fullmatch(b) is not None


def _rank(piece: Piece) -> int:
    return 0 if isinstance(piece, str) else 2 if piece is None else 1


def written(path: str) -> str:
    """The path as the catalogue has it. Raises `ValueInvalid` where it cannot be written."""
    if not path.startswith("/"):
        raise ValueInvalid("a path that does not start with a slash", "")
    if "?" in path or "#" in path:
        raise ValueInvalid("a path with a query or a fragment in it", "")
    taken: set[str] = set()
    parts = [_part(part, taken) for part in path[1:].split("/")]
    return parse_template("/" + "/".join(parts)).text


def _part(part: str, taken: set[str]) -> str:
    whole = _WHOLE.fullmatch(part)
    if whole is not None:
        name = _parameter(whole[1], taken)
        taken.add(name)
        return f"{{{name}}}"
    if "{" in part or "}" in part:
        raise ValueInvalid("a parameter that is only a part of a segment", "")
    if "*" in part:
        raise ValueInvalid("a path with a * in it", "")
    return quote(part, safe=_SAFE)


def _parameter(name: str, taken: set[str]) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    base = re.sub(r"[^a-z0-9]+", "_", words).strip("_")
    base = (base if base[:1].isalpha() else f"p_{base}")[:28].rstrip("_")
    found, number = base, 1
    while found in taken:
        number += 1
        found = f"{base}_{number}"
    return found


def shape_of_written(text: str) -> Shape:
    """Of a path that the catalogue has."""
    return Shape(tuple(None if piece is PARAMETER else str(piece) for piece in parse_template(text).segments))


def shape_of(path: str) -> Shape:
    """Of a path that cannot be written: rather too wide than too narrow."""
    plain = re.split(r"[?#]", path, maxsplit=1)[0].removeprefix("/")
    pieces: list[Piece] = []
    for part in plain.split("/"):
        inside = "".join(_BRACES.findall(part))
        if "+" in inside or "*" in part:
            return Shape(tuple(pieces), open=True)
        pieces.append(_piece(part))
    return Shape(tuple(pieces))


def _piece(part: str) -> Piece:
    if "{" not in part and "}" not in part:
        return part
    if _WHOLE.fullmatch(part):
        return None
    ends = _BRACES.split(part)
    if len(ends) < 2:
        return None
    # The text before the first parameter and behind the last one: no pattern that could take long on a long segment.
    return re.compile(f"{re.escape(ends[0])}.*{re.escape(ends[-1])}", re.DOTALL)
