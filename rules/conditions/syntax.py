"""A checked expression as a tree, read from the bytes in which CEL's implementation gives it out.

They are `cel.expr.CheckedExpr` (github.com/google/cel-spec, proto/cel/expr/checked.proto and syntax.proto) inside of a
`google.protobuf.Any`. What is looked at here is what was compiled, so no text can be read in another way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

type Kind = Literal["const", "ident", "select", "call", "list", "map", "loop"]
type Chain = tuple[str, ...]
"""`args.metadata.order`, by its names."""

_ANY_VALUE: Final = 2
_CHECKED_EXPR: Final = 4
_STRING: Final = 6


@dataclass(frozen=True, slots=True)
class Node:
    """One expression."""

    kind: Kind
    name: str = ""
    """Of an identifier, a field, or a function; a constant's text; empty otherwise."""
    parts: "tuple[Node, ...]" = ()
    """Operands. Of a loop: its range, and then what is done with each item."""
    binds: tuple[str, ...] = ()
    """Of a loop: the names that it gives to an item."""
    asks: bool = False
    """Of a selection: whether it only asks if the field is there."""

    def walk(self) -> "Iterator[Node]":
        """This and all inside."""
        yield self
        for part in self.parts:
            yield from part.walk()

    @property
    def chain(self) -> Chain | None:
        """The names, where it is a variable or a member of one; None elsewhere."""
        match self:
            case Node("ident"):
                return (self.name,)
            case Node("select", asks=False):
                return None if (before := self.parts[0].chain) is None else (*before, self.name)
            case Node("call", "_[_]", (of, Node("const", name))) if name:
                return None if (before := of.chain) is None else (*before, name)
            case _:
                return None


def adds(node: Node, loop: Node) -> bool:
    """Whether it adds to the list that the loop builds."""
    return node.kind == "call" and node.name == "_+_" and node.parts[0] == Node("ident", loop.name)


def read_syntax(serialized: bytes) -> Node:
    """The tree. Raises `ValueError` for bytes that are none."""
    checked = dict(_fields(serialized)).get(_ANY_VALUE)
    expression = None if not isinstance(checked, bytes) else dict(_fields(checked)).get(_CHECKED_EXPR)
    if not isinstance(expression, bytes):
        raise ValueError("not a checked expression")
    return _node(expression)


def _node(raw: bytes) -> Node:
    for number, value in _fields(raw):
        if not isinstance(value, bytes):
            continue
        fields = list(_fields(value))
        match number:
            case 3:
                return Node("const", next((_text(v) for n, v in fields if n == _STRING), ""))
            case 4:
                return Node("ident", _name(fields, 1))
            case 5:
                asks = any(n == 3 and v for n, v in fields)
                return Node("select", _name(fields, 2), _nodes(fields, 1), asks=asks)
            case 6:
                return Node("call", _name(fields, 2), (*_nodes(fields, 1), *_nodes(fields, 3)))
            case 7:
                return Node("list", parts=_nodes(fields, 1))
            case 8:
                entries = [list(_fields(v)) for n, v in fields if n == 2 and isinstance(v, bytes)]
                return Node("map", parts=tuple(node for of in entries for node in (*_nodes(of, 3), *_nodes(of, 4))))
            case 9:
                binds = tuple(name for n in (1, 8) if (name := _name(fields, n)))
                parts = tuple(node for n in (2, 4, 5, 6, 7) for node in _nodes(fields, n))
                return Node("loop", _name(fields, 3), parts, binds)
            case _:
                pass
    return Node("const")


def _nodes(fields: list[tuple[int, bytes | int]], number: int) -> tuple[Node, ...]:
    return tuple(_node(value) for n, value in fields if n == number and isinstance(value, bytes))


def _name(fields: list[tuple[int, bytes | int]], number: int) -> str:
    return next((_text(value) for n, value in fields if n == number), "")


def _text(value: bytes | int) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else ""


def _fields(raw: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a message (protobuf.dev/programming-guides/encoding), in order."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        match key & 7:
            case 0:
                value, at = _varint(raw, at)
                yield key >> 3, value
            case 1 | 5 as width:
                at += 8 if width == 1 else 4
            case 2:
                size, at = _varint(raw, at)
                if at + size > len(raw):
                    raise ValueError("a field is cut off")
                yield key >> 3, raw[at : at + size]
                at += size
            case _:
                raise ValueError("no such kind of field")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(raw) and shift < 64:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number is cut off")
