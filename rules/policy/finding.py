"""What checking a policy finds."""

from dataclasses import dataclass
from typing import Final

from rules.policy.reading import Location


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or probably not meant, at a place of the document."""

    location: Location
    message: str
    fix: str
    fatal: bool = True
    at_key: bool = False
    name: str = ""
    """Of a warning; permanent, so that people can say which of them they accept."""


UNUSED_CONNECTION: Final = "unused-connection"
NO_ALLOW_RULE: Final = "no-allow-rule"
DUPLICATE_RULE: Final = "duplicate-rule"
DENIED_RULE: Final = "denied-rule"
INSPECTED_STREAM: Final = "inspected-stream"
CONSTANT_CONDITION: Final = "constant-condition"
UNKNOWN_SEGMENT: Final = "unknown-segment"
SHADOWED_RULE: Final = "shadowed-rule"
WILDCARD_WRITE: Final = "wildcard-write"
UNKNOWN_BESIDE_DENIED: Final = "unknown-beside-denied"
NO_LIMITS: Final = "no-limits"
UNREACHABLE_OUTCOME: Final = "unreachable-outcome"
NAMES: Final = (
    UNUSED_CONNECTION,
    NO_ALLOW_RULE,
    DUPLICATE_RULE,
    DENIED_RULE,
    INSPECTED_STREAM,
    CONSTANT_CONDITION,
    UNKNOWN_SEGMENT,
    SHADOWED_RULE,
    WILDCARD_WRITE,
    UNKNOWN_BESIDE_DENIED,
    NO_LIMITS,
    UNREACHABLE_OUTCOME,
)
"""Every warning, as the reference lists them. A name is never given to another."""
