"""Merkle trees of RFC 6962 (2.1), the same as RFC 9162.

leaf = SHA-256(0x00 || entry), node = SHA-256(0x01 || left || right), the empty tree is SHA-256 of nothing.
`Frontier` holds the roots of the complete subtrees only: O(log n) memory, one node hash an append on average.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962, 2.1: SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962, 2.1: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """An append-only tree that remembers only what further appends and the root need."""

    __slots__ = ("nodes", "size")

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.nodes = list(nodes)
        if len(self.nodes) != size.bit_count():
            raise ValueError("a frontier has one node for every bit set in its size")

    def append(self, leaf: bytes, _sha256: type = sha256) -> None:  # type: ignore[assignment]
        """The leaf is the tree's last."""
        size = self.size
        nodes = self.nodes
        while size & 1:
            leaf = _sha256(b"\x01" + nodes.pop() + leaf).digest()
            size >>= 1
        nodes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The tree's root; the frontier is unchanged."""
        nodes = self.nodes
        if not nodes:
            return EMPTY_ROOT
        root = nodes[-1]
        for index in range(len(nodes) - 2, -1, -1):
            root = sha256(b"\x01" + nodes[index] + root).digest()
        return root

    def copy(self) -> "Frontier":
        """An independent frontier of the same tree."""
        return Frontier(self.size, self.nodes)


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    if len(leaves) == 2:
        return sha256(b"\x01" + leaves[0] + leaves[1]).digest()
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def path_of(index: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """The audit path of a leaf, nearest sibling first (RFC 6962, 2.1.1)."""
    if not 0 <= index < len(leaves):
        raise ValueError("no such leaf")
    if len(leaves) == 1:
        return ()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return (*path_of(index, leaves[:split]), root_of(leaves[split:]))
    return (*path_of(index - split, leaves[split:]), root_of(leaves[:split]))


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a path leads to, or None when the path's length does not fit (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return None
    position, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if position & 1 or position == last:
            root = node_hash(sibling, root)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        position >>= 1
        last >>= 1
    return root if last == 0 else None
