"""What checking a policy finds."""

from dataclasses import dataclass

from rules.policy.reading import Location


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or probably not meant, at a place of the document."""

    location: Location
    message: str
    fix: str
    fatal: bool = True
    at_key: bool = False
