"""What an expression may cost at most: work that grows with the square of what is sent is refused when it is loaded.

The evaluator's own bound counts the steps of macros, and not what is done in one: looking for each of 10,000 items in
a list of as many, or measuring a long text for each of them, takes it between 4 and 20 seconds.
"""

from dataclasses import dataclass
from typing import Final

from rules.conditions.syntax import Node, adds
from rules.policy.invalid import ValueInvalid

LONG: Final = frozenset({"args", "body", "query", "recipients", "found"})
"""Variables that can have many items, or long ones."""
_SEARCHING: Final = frozenset({"@in", "contains", "matches", "size", "_+_"})
"""Functions that take time in the length of what they are given, and copy or search all of it."""
_FIX: Final = "go over one list in one rule, or over a list that is written out, such as ['a', 'b']"


@dataclass(frozen=True, slots=True)
class _Loop:
    """A macro that goes over something long."""

    names: frozenset[str]
    plain: bool
    """Whether it goes over a member as it was sent: then members of its items are parts of that, each met once."""


def check_cost(tree: Node) -> None:
    """Raises `ValueInvalid` for an expression that may take more than time in the length of what is sent."""
    _check(tree, ())


def _check(node: Node, loops: tuple[_Loop, ...]) -> None:
    long = LONG.union(*(loop.names for loop in loops))
    inner = loops[-1].names if loops and loops[-1].plain else frozenset()
    if node.kind == "call" and node.name in _SEARCHING and loops and not _builds(node):
        for part in node.parts:
            outer = _idents(part) & (long - inner)
            if outer:
                raise ValueInvalid(f"a macro over what is sent looks through {min(outer)} for each item", _FIX)
    if node.kind != "loop":
        for part in node.parts:
            _check(part, loops)
        return
    over, *rest = node.parts
    _check(over, loops)
    within = loops
    if _idents(over) & long:
        plain = _plain(over, inner if loops else LONG)
        if loops and not plain:
            raise ValueInvalid("a macro over what is sent stands inside of another", _FIX)
        within = (*loops, _Loop(frozenset(node.binds), plain))
    for part in rest:
        _check(part, within)


def _builds(node: Node) -> bool:
    """Whether it is the step by which a macro makes a list."""
    return node.parts[0].kind == "ident" and node.parts[0].name.startswith("@")


def _plain(over: Node, roots: frozenset[str]) -> bool:
    """Whether its items are, each once, items of a member of one of these."""
    if over.kind != "loop":
        return (chain := over.chain) is not None and chain[0] in roots
    added = [node.parts[1] for part in over.parts[1:] for node in part.walk() if adds(node, over)]
    kept = tuple(Node("list", parts=(Node("ident", name),)) for name in over.binds)
    return all(one in kept for one in added) and _plain(over.parts[0], roots)


def _idents(node: Node) -> frozenset[str]:
    return frozenset(inner.name for inner in node.walk() if inner.kind == "ident")
