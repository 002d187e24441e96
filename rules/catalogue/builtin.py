"""The services that come with Exeat, each read when a policy first has a connection to it."""

from functools import cache
from importlib import resources
from typing import Final

from pydantic import ValidationError

from rules.catalogue.document import ServiceDocument, known_service
from rules.catalogue.known import KnownService
from rules.policy.reading import read

BUILTIN: Final = ("anthropic", "github", "google", "openai", "slack", "stripe")
"""A new one is one file in `services/`, and its name here."""


@cache
def builtin(name: str) -> KnownService | None:
    """The built-in service of that name; None when there is none."""
    return known_service(document) if (document := builtin_document(name)) is not None else None


@cache
def builtin_document(name: str) -> ServiceDocument | None:
    """Its file."""
    if name not in BUILTIN:
        return None
    file = resources.files("rules.catalogue") / "services" / f"{name}.yaml"
    reading, errors = read(file.read_bytes(), file.name)
    if reading is None or errors:
        raise RuntimeError(f"{file.name} in this installation is damaged: {errors}")
    try:
        return ServiceDocument.model_validate(reading.data)
    except ValidationError as error:
        raise RuntimeError(f"{file.name} in this installation is damaged: {error}") from error
