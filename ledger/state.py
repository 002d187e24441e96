"""The state of a log: all that the next record depends on, and nothing more."""

from typing import Any, Final

from ledger.lifecycle import CALL_TYPES, CallBook, LifecycleBroken
from ledger.note import Verifier
from ledger.tenants import NO_LEAF, TenantTree
from ledger.tree import Frontier

KEY_TYPES: Final = frozenset({"genesis", "key.add"})
"""Records that name a key that signs the log from then on."""


class StateBroken(ValueError):
    """A record does not continue the log it is found in."""


class LogState:
    """A log up to `size` records: chain, trees, open calls, policies."""

    __slots__ = (
        "blinding",
        "calls",
        "frontier",
        "keys",
        "last_types",
        "last_us",
        "origin",
        "policies",
        "policy",
        "prev",
        "tenants",
    )

    def __init__(self, origin: str, blinding: bytes) -> None:
        self.origin = origin
        self.blinding = blinding
        self.frontier = Frontier()
        self.prev = NO_LEAF
        """Hex of the last leaf."""
        self.tenants: dict[str, TenantTree] = {}
        self.calls = CallBook()
        self.policies: set[str] = set()
        """Digests that some policy.activate has named."""
        self.policy: str | None = None
        """The last of them."""
        self.last_us = 0
        """Time of the last record, microseconds since the Unix epoch."""
        self.keys: list[Verifier] = []
        """The log's keys in the order they were added; the last one signs."""
        self.last_types = ("", "")
        """Of the last two records."""

    def copy(self) -> "LogState":
        """An independent state of the same log."""
        other = LogState(self.origin, self.blinding)
        other.frontier, other.prev, other.calls = self.frontier.copy(), self.prev, self.calls.copy()
        other.tenants = {name: tree.copy() for name, tree in self.tenants.items()}
        other.policies, other.policy, other.last_us = self.policies.copy(), self.policy, self.last_us
        other.keys, other.last_types = self.keys.copy(), self.last_types
        return other

    @property
    def size(self) -> int:
        """The number of records, and so the next seq."""
        return self.frontier.size

    def tenant(self, name: str) -> TenantTree:
        """The tenant's tree, made when this is its first record."""
        tree = self.tenants.get(name)
        if tree is None:
            tree = self.tenants[name] = TenantTree(name, self.blinding)
        return tree

    def admit(self, type_: str, seq: int, tenant: str, content: dict[str, Any]) -> None:
        """What the record means is entered; raises `LifecycleBroken` or `PolicyUnknown`."""
        if type_ in CALL_TYPES:
            if type_ == "call.intent":
                policy = content["decision"]["policy"]
                if policy not in self.policies:
                    raise PolicyUnknown("no policy.activate has named the policy that allowed this intent")
            self.calls.admit(type_, seq, tenant, content)
        elif type_ == "policy.activate":
            self.policy = content["policy"]
            self.policies.add(self.policy)
        elif type_ in KEY_TYPES:
            self.keys.append(Verifier.parse(content["key"]))
        self.last_types = (self.last_types[1], type_)

    def extend(self, tree: TenantTree, leaf: bytes, leaf_hex: str) -> None:
        """The leaf is the last of the log's tree, of its tenant's tree and of both chains."""
        self.frontier.append(leaf)
        tree.frontier.append(leaf)
        tree.last = leaf_hex
        self.prev = leaf_hex


class PolicyUnknown(LifecycleBroken):
    """An intent was decided under a policy that the log does not know."""
