"""What is told: an alert, and the forms in which destinations take it. Names and amounts; no payload, no secret."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

INSTALLATION: Final = "-"
"""The tenant of what concerns the whole installation: the reserved one, as in records."""
MAX_TEXT: Final = 500
MAX_VALUE: Final = 512
MAX_MEMBERS: Final = 32


class Severity(StrEnum):
    """How much it matters."""

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Raise:
    """What somebody wants told."""

    tenant: str
    kind: str
    """Permanent, such as `spend.threshold`."""
    severity: Severity
    text: str
    """One line for people."""
    detail: Mapping[str, str] = field(default_factory=dict)
    once: str | None = None
    """An alert with this key is raised once, however often it is wanted; None: each time."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that was raised."""

    id: str
    """The same at every destination and in every attempt: receivers tell repetitions by it."""
    tenant: str
    kind: str
    severity: Severity
    at: datetime
    text: str
    detail: Mapping[str, str]

    def document(self) -> dict[str, object]:
        """As webhooks take it: `type`, `timestamp`, `data`."""
        return {"type": self.kind, "timestamp": self.at.strftime("%Y-%m-%dT%H:%M:%SZ"), "data": self.data()}

    def data(self) -> dict[str, object]:
        """What there is to say."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "severity": str(self.severity),
            "text": self.text,
            "detail": dict(self.detail),
        }

    def json(self) -> bytes:
        """The document's bytes, the same each time; ASCII alone."""
        return json.dumps(self.document(), separators=(",", ":"), sort_keys=True).encode("ascii")

    def slack(self) -> bytes:
        """As Slack's incoming hooks take it."""
        about = ", ".join(f"{name} {value}" for name, value in self.detail.items())
        lines = [f"{self.severity}: {self.text}", *([about] if about else []), f"{self.kind} {self.id}"]
        text = "\n".join(lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return json.dumps({"text": text}).encode("ascii")


def one_line(text: str, most: int) -> str:
    """The text on one line, without what a terminal or a log obeys, at most so long."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(kept.split())[:most]
