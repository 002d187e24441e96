"""Who did an administrative act. People are named; the machine says that it was the machine."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of an act, as authenticated by the listener it came through; never as declared by a client."""

    kind: str
    """`uid` for a peer of the operators' socket or the owner of the state folder, `system` for Exeat itself."""
    id: str
    name: str

    def as_record(self) -> dict[str, str]:
        """The form in which the ledger and the store keep it."""
        return {"kind": self.kind, "id": self.id, "name": self.name}


SYSTEM: Final = Actor("system", "exeat", "exeat")
"""Acts that no operator asked for, such as recovery at start-up."""
