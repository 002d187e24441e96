"""What was made of an object that does not change, while the same object is asked about again."""

from typing import Final

MOST: Final = 4096
"""Objects that are kept. All are let go of together: what is in use is back after one call each."""


class ByIdentity[K, V]:
    """Values by the very object, not by what it equals: that costs no comparison. Any thread."""

    __slots__ = ("_kept", "_most")

    def __init__(self, most: int = MOST) -> None:
        self._kept: dict[int, tuple[K, V]] = {}
        self._most = most

    def get(self, key: K) -> V | None:
        """What was put for this object; None where nothing was, or it has been let go of."""
        found = self._kept.get(id(key))
        # Kept objects live, so nobody else has their number; whether it is this one is asked all the same.
        return found[1] if found is not None and found[0] is key else None

    def put(self, key: K, value: V) -> V:
        """The value, which is kept for the object."""
        if len(self._kept) >= self._most:
            self._kept = {}
        self._kept[id(key)] = key, value
        return value
