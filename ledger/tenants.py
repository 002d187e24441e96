"""One tree per tenant beside the log's own, and the blinded heads that a seal commits to.

A tenant's tree has the same leaf hashes as the log, in the order of the tenant's own sequence. The heads let a tenant
check that it was shown everything, without learning who else is there: what a head names is HMAC(blinding key, tenant).
"""

import hmac
from collections.abc import Iterable
from hashlib import sha256

from ledger.tree import EMPTY_ROOT, Frontier, leaf_hash

NO_LEAF = "0" * 64
"""What `prev` and `tprev` say in a first record."""


class TenantTree:
    """What further records of one tenant need to know."""

    __slots__ = ("_blind", "_head", "_head_size", "frontier", "last")

    def __init__(self, tenant: str, blinding: bytes) -> None:
        self.frontier = Frontier()
        self.last = NO_LEAF
        """Hex of the last leaf."""
        self._blind = blind(blinding, tenant)
        self._head = b""
        self._head_size = -1

    def copy(self) -> "TenantTree":
        """An independent tree of the same records."""
        other = object.__new__(TenantTree)
        other.frontier, other.last = self.frontier.copy(), self.last
        other._blind, other._head, other._head_size = self._blind, self._head, self._head_size
        return other

    @property
    def size(self) -> int:
        """The number of the tenant's records, and so the next `tseq`."""
        return self.frontier.size

    def head(self) -> tuple[bytes, bytes]:
        """(blinded name, leaf of the heads tree); recomputed only when the tenant has new records."""
        if self._head_size != self.frontier.size:
            self._head = head_leaf(self._blind, self.frontier.size, self.frontier.root())
            self._head_size = self.frontier.size
        return self._blind, self._head


def blind(blinding: bytes, tenant: str) -> bytes:
    """The name under which a tenant's head is published."""
    return hmac.digest(blinding, b"ledger-tenant/v1\x00" + tenant.encode("utf-8"), "sha256")


def head_leaf(blinded: bytes, size: int, root: bytes) -> bytes:
    """The leaf hash of one tenant's head: blinded name, tree size as 8 bytes, root."""
    return leaf_hash(blinded + size.to_bytes(8, "big") + root)


def heads_root(trees: Iterable[TenantTree]) -> bytes:
    """The root over all tenants' heads, sorted by blinded name."""
    frontier = Frontier()
    for _, leaf in sorted(tree.head() for tree in trees):
        frontier.append(leaf)
    return frontier.root()


def state_digest(trees: dict[str, TenantTree], open_intents: Iterable[int]) -> bytes:
    """What a segment's header commits to beside the log's frontier: every tenant's frontier and the open intents.

    SHA-256 over, for each tenant sorted by name: name, NUL, size (8 bytes), last leaf, frontier nodes; then the open
    intents' seqs in order (8 bytes each).
    """
    if not trees:
        return EMPTY_ROOT
    digest = sha256(b"ledger-state/v1\x00")
    for tenant in sorted(trees):
        tree = trees[tenant]
        digest.update(tenant.encode("utf-8") + b"\x00" + tree.size.to_bytes(8, "big") + bytes.fromhex(tree.last))
        digest.update(b"".join(tree.frontier.nodes))
    digest.update(b"\x00")
    digest.update(b"".join(seq.to_bytes(8, "big") for seq in sorted(open_intents)))
    return digest.digest()
