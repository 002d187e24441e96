"""What an expression asks of the data that it is evaluated over, and what of that would not be told truly.

Three things are looked at before CEL sees the data, and make the variable one without a value:

- A member whose name is that of one which the expression reads, in other capitals. Services whose reader ignores
  capitals (Go's encoding/json, ASP.NET) take `Amount` for `amount`; to CEL it is missing.
- A fraction that `int()` would cut. CEL reads `int(5.9)` as 5 (langdef, "int"), and nobody knows what the service does.
- A list that a macro would build another one from, if it is long: the evaluator copies what it has for each item.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rules.conditions.syntax import Chain, Node, adds

MAX_BUILT: Final = 500
"""Items that `map` and `filter` go through: some 20 ms. 10,000 of them would take 5 s."""
_DATA: Final = frozenset({"args", "body", "query"})
"""Variables whose names the caller chose."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one expression asks for."""

    names: frozenset[str]
    """Of members, as it writes them."""
    folded: frozenset[str]
    whole: tuple[Chain, ...]
    """What it takes for whole numbers."""
    built: tuple[Chain, ...]
    """What it builds lists from."""

    def untold(self, values: Mapping[str, object]) -> frozenset[str]:
        """The variables that cannot be told with these values."""
        found: set[str] = set()
        if self.names:
            data = _DATA & values.keys()
            found = {name for name in data if other_capitals(values[name], self.names, self.folded)}
        for chain in self.whole:
            value = _at(values, chain)
            if isinstance(value, float) and not value.is_integer():
                found.add(chain[0])
        found |= {chain[0] for chain in self.built if _longest(_at(values, chain)) > MAX_BUILT}
        return frozenset(found)


def asked_by(tree: Node) -> Asked:
    """What the expression asks for."""
    names = {n.name for n in tree.walk() if n.kind == "select" or (n.kind == "const" and n.name)}
    whole = (n.parts[-1].chain for n in tree.walk() if n.kind == "call" and n.name == "int" and n.parts)
    return Asked(
        frozenset(names),
        frozenset(map(str.casefold, names)),
        tuple(dict.fromkeys(chain for chain in whole if chain is not None)),
        tuple(dict.fromkeys(_built(tree, {}))),
    )


def other_capitals(value: object, names: frozenset[str], folded: frozenset[str]) -> bool:
    """Whether a member that is read is there under its name in other capitals; inside of members that are read, too."""
    if isinstance(value, dict):
        return any(
            other_capitals(member, names, folded) if name in names else name.casefold() in folded
            for name, member in value.items()
        )
    return isinstance(value, list) and any(other_capitals(item, names, folded) for item in value)


def _built(node: Node, bound: Mapping[str, tuple[Chain, ...]]) -> Iterator[Chain]:
    """What loops go through that add to a list; what an item stands for is the list that it is from."""
    if node.kind != "loop":
        for part in node.parts:
            yield from _built(part, bound)
        return
    over, *rest = node.parts
    yield from _built(over, bound)
    through = tuple(_chains(over, bound))
    if any(adds(inner, node) for part in rest for inner in part.walk()):
        yield from through
    within = {**bound, **dict.fromkeys(node.binds, through)}
    for part in rest:
        yield from _built(part, within)


def _chains(node: Node, bound: Mapping[str, tuple[Chain, ...]]) -> Iterator[Chain]:
    """The longest chains that a list may come from."""
    if node.kind == "loop":
        node = node.parts[0]
    chain = node.chain
    if chain is not None:
        yield from bound.get(chain[0], (chain,))
        return
    for part in node.parts:
        yield from _chains(part, bound)


def _at(values: Mapping[str, object], chain: Chain) -> object:
    value: object = values
    for name in chain:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _longest(value: object) -> int:
    """The length of the longest list or map in it."""
    if isinstance(value, dict):
        return max([len(value), *map(_longest, value.values())])
    return max([len(value), *map(_longest, value)]) if isinstance(value, list) else 0
