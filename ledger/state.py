"""The state of a log: all that the next record depends on, and nothing more."""

from typing import Any

from ledger.lifecycle import CALL_TYPES, CallBook, LifecycleBroken
from ledger.tenants import NO_LEAF, TenantTree
from ledger.tree import Frontier


class StateBroken(ValueError):
    """A record does not continue the log it is found in."""


class LogState:
    """A log up to `size` records: chain, trees, open calls, policies."""

    __slots__ = ("blinding", "calls", "frontier", "last_us", "origin", "policies", "policy", "prev", "tenants")

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
        """What the record means for calls and policies is entered; raises `LifecycleBroken` or `PolicyUnknown`."""
        if type_ in CALL_TYPES:
            if type_ == "call.intent":
                policy = content["decision"]["policy"]
                if policy not in self.policies:
                    raise PolicyUnknown("no policy.activate has named the policy that allowed this intent")
            self.calls.admit(type_, seq, tenant, content)
        elif type_ == "policy.activate":
            self.policy = content["policy"]
            self.policies.add(self.policy)

    def extend(self, tree: TenantTree, leaf: bytes, leaf_hex: str) -> None:
        """The leaf is the last of the log's tree, of its tenant's tree and of both chains."""
        self.frontier.append(leaf)
        tree.frontier.append(leaf)
        tree.last = leaf_hex
        self.prev = leaf_hex


class PolicyUnknown(LifecycleBroken):
    """An intent was decided under a policy that the log does not know."""
