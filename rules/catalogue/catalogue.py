"""The catalogue as one policy has it: what comes with Exeat, and what the policy adds to it or says otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from rules.catalogue.builtin import BUILTIN, builtin, builtin_document
from rules.catalogue.document import ServiceDocument, known_service
from rules.catalogue.known import KnownService
from rules.services import of_host

MCP: Final = "mcp"
"""In place of a service's name: a server of tools that no file describes. Each of its tools is a write."""


@dataclass(frozen=True)
class Catalogue:
    """The services that connections of a policy can be of."""

    documents: tuple[ServiceDocument, ...] = ()
    """Those in the policy's files, by name."""
    _services: dict[str, KnownService] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises `ValueInvalid` for a service whose parts do not fit together."""
        object.__setattr__(self, "_services", {d.service: known_service(whole(d)) for d in self.documents})

    @property
    def names(self) -> tuple[str, ...]:
        """Of all services in it."""
        return tuple(sorted({*BUILTIN, *self._services}))

    def named(self, name: str) -> KnownService | None:
        """The service of that name, with what the policy adds."""
        return self._services.get(name) or builtin(name)

    def of(self, connection: str, host: str, service: str | None, endpoint: str | None = None) -> KnownService | None:
        """The service that a connection is of: the one it names, else the one its host belongs to; None: none.

        `endpoint` is where MCP is spoken there, if the connection says it.
        """
        known = self._of(connection, host, service)
        if known is None or known.protocol != MCP or endpoint in (None, known.endpoint):
            return known
        return replace(known, endpoint=endpoint)

    def _of(self, connection: str, host: str, service: str | None) -> KnownService | None:
        if service == MCP:
            return KnownService(f"{MCP}.{connection}", (), "mcp", (), {})
        if service is not None:
            return self.named(service)
        own = next((known for known in self._services.values() if known.has(host)), None)
        if own is not None:
            return own
        form = of_host(host)
        return None if form is None else self.named(form.name)


def whole(document: ServiceDocument) -> ServiceDocument:
    """A policy's file with what is built in under its name: its tools beside and in place of those, and so all keys."""
    base = builtin_document(document.service)
    if base is None:
        return document
    said = {name: getattr(document, name) for name in document.model_fields_set}
    hosts = list(dict.fromkeys((*(base.hosts or ()), *(document.hosts or ()))))
    return base.model_copy(update={**said, "hosts": hosts, "tools": {**base.tools, **document.tools}})


def catalogue_of(documents: Iterable[ServiceDocument]) -> Catalogue:
    """The catalogue with these files. Raises `ValueInvalid`."""
    return Catalogue(tuple(sorted(documents, key=lambda document: document.service)))


NOTHING_ADDED: Final = Catalogue()
"""What comes with Exeat, alone."""
