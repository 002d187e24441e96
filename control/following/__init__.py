"""What is derived from the ledger while it grows, and may be lost: it is derived again."""

from control.following.follower import Fold, Follower

__all__ = ["Fold", "Follower"]
