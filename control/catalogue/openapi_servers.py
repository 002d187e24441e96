"""What an OpenAPI document says of its servers: hosts, and the paths that all its paths begin with."""

import re
from dataclasses import dataclass
from itertools import islice, product
from typing import Final

from control.catalogue.document_reading import Value
from rules.policy.hosts import normalise_host
from rules.policy.invalid import ValueInvalid

MAX_SERVERS: Final = 32
_URL: Final = re.compile(r"(?:(?P<scheme>[A-Za-z]+)://(?P<host>[^/?#]*))?(?P<path>/?[^?#]*)", re.DOTALL)
_VARIABLE: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Servers:
    """Where a document's paths are."""

    hosts: tuple[str, ...]
    bases: tuple[str, ...]
    """Never empty; each without a slash at its end."""


NOWHERE: Final = Servers((), ("",))
"""OpenAPI 3.1 section 4.8.1: without servers there is one, `/`."""


def servers_of(value: Value) -> Servers:
    """The hosts and base paths; what is no URL, no host or no path is left out."""
    if not isinstance(value, list) or not value:
        return NOWHERE
    hosts: dict[str, None] = {}
    bases: dict[str, None] = {}
    for server in value[:MAX_SERVERS]:
        url = server.get("url") if isinstance(server, dict) else None
        if not isinstance(server, dict) or not isinstance(url, str) or len(url) > 2048:
            continue
        parsed = _URL.fullmatch(url.strip())
        if parsed is None:
            continue
        variables = server.get("variables")
        known = variables if isinstance(variables, dict) else {}
        for host in _hosts(parsed["host"] or "", known):
            hosts.setdefault(host)
        for base in _filled(parsed["path"] or "", known):
            path = base.rstrip("/")
            bases.setdefault(path if path.startswith("/") or not path else f"/{path}")
    return Servers(tuple(hosts)[:MAX_SERVERS], tuple(bases)[:8] or ("",))


def _hosts(authority: str, variables: dict[str, Value]) -> list[str]:
    found = []
    host = authority.rpartition("@")[2]
    host = re.sub(r":(?:\d+|\{[^{}]*\})\Z", "", host)
    if not host or "*" in host:
        return []
    first, _, rest = host.partition(".")
    name = _VARIABLE.fullmatch(first)
    if name is not None and _listed(variables.get(name[1])) is None and rest.count(".") >= 1:
        # A variable that may be anything is every host of that domain.
        found = [f"*.{known}" for known in _filled(rest, variables)]
    else:
        found = _filled(host, variables)
    return [normal for name in found if (normal := _normal(name)) is not None]


def _normal(host: str) -> str | None:
    try:
        return f"*.{normalise_host(host[2:])}" if host.startswith("*.") else normalise_host(host)
    except ValueInvalid:
        return None


def _filled(text: str, variables: dict[str, Value]) -> list[str]:
    """The text with each value that its variables may have; a variable without any stays."""
    names = list(dict.fromkeys(_VARIABLE.findall(text)))
    choices = [_values(variables.get(name)) or [f"{{{name}}}"] for name in names]
    filled = []
    for chosen in islice(product(*choices), MAX_SERVERS):
        values = dict(zip(names, chosen, strict=True))
        parts = _VARIABLE.split(text)  # text, name, text, name, ... text
        filled.append("".join(values[part] if at % 2 else part for at, part in enumerate(parts)))
    return filled


def _listed(variable: Value) -> list[str] | None:
    enum = variable.get("enum") if isinstance(variable, dict) else None
    texts = [item for item in enum if isinstance(item, str)] if isinstance(enum, list) else []
    return texts or None


def _values(variable: Value) -> list[str]:
    listed = _listed(variable)
    if listed is not None:
        return listed[:MAX_SERVERS]
    default = variable.get("default") if isinstance(variable, dict) else None
    return [default] if isinstance(default, str) else []
