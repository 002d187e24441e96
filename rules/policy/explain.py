"""pydantic's errors as errors of a policy: the place in the file, what is wrong in the policy's words, and the fix."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from rules.catalogue.document import ServiceDocument
from rules.policy import values
from rules.policy.invalid import ValueInvalid
from rules.policy.models import TenantDocument
from rules.policy.reading import Location, Reading
from rules.policy.source import PolicyError
from rules.prices.document import BookDocument

_LATER: Final[Mapping[str, str]] = {
    "approve": "approvals are not part of this version; write allow or deny",
    "by": "approvals are not part of this version; remove it",
    "within": "approvals are not part of this version; remove it",
    "over": "approvals are not part of this version; remove it",
}
"""Keys that the design has and this version does not: better said than guessed at."""

_EXAMPLES: Final[Mapping[str, str]] = {
    "exeat": "exeat: 1",
    "tenant": "tenant: acme",
    "host": "host: api.example.com",
    "owners": "owners: {accountable: ana@acme.example, system: platform@acme.example, risk: risk@acme.example}",
    "accountable": "accountable: ana@acme.example",
    "system": "system: platform@acme.example",
    "risk": "risk: risk@acme.example",
    "id": "id: read-tickets",
    "account": "account: support-agent",
    "call": "call: GET tickets /api/v2/tickets/7",
    "expect": "expect: allow",
    "connection": "connection: NAME",
    "path": "path: /api/v2/tickets",
    "meter": "meter: price",
    "max": "max: 10, or an amount such as 5 USD for spend",
    "per": "per: second, or per: day for spend",
}

_KINDS: Final[Mapping[str, str]] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
}


def explain(error: ErrorDetails, reading: Reading) -> PolicyError:
    """The policy error that one of pydantic's stands for."""
    location = tuple(error["loc"])
    if location and location[-1] == "[key]":
        return _of_value(error, location[:-1], reading, at_key=True)
    kind = error["type"]
    if kind == "missing":
        key = str(location[-1])
        example = _EXAMPLES.get(key, f"{key}: ...")
        place = reading.key(location[:-1]) if location[:-1] else reading.value(())
        return reading.error(place, f"{_named(location[:-1])}lacks {key}", f"add {example}")
    if kind == "extra_forbidden":
        key = str(location[-1])
        known = known_keys(location[:-1], _document(reading))
        fix = _LATER[key] if key in _LATER else values.suggest(key, known)
        shown = f"unknown key {key[:60]}" if key.isprintable() else "unknown key"
        return reading.error(reading.key(location), shown, fix)
    return _of_value(error, location, reading)


def _document(reading: Reading) -> type[BaseModel]:
    """What the file is meant to be."""
    if "catalogue" in reading.data:
        return ServiceDocument
    return BookDocument if "prices" in reading.data else TenantDocument


def _of_value(error: ErrorDetails, location: Location, reading: Reading, *, at_key: bool = False) -> PolicyError:
    place = reading.key(location) if at_key else reading.value(location)
    context = error.get("ctx", {})
    cause = context.get("error")
    name = "" if at_key else _last_key(location)
    if isinstance(cause, ValueInvalid):
        return reading.error(place, f"{name}{cause.message}", cause.fix)
    kind, given = error["type"], error["input"]
    if kind == "literal_error":
        known = tuple(part.strip(" '") for part in str(context.get("expected", "")).replace(" or ", ",").split(","))
        fix = values.suggest(given, known) if isinstance(given, str) else f"known here: {', '.join(known)}"
        return reading.error(place, f"{name}not one of the known words", fix)
    if kind in _KINDS:
        wanted = _KINDS[kind]
        if given is None:
            return reading.error(place, f"{name}empty where {wanted} is needed", "write it, or remove the key")
        return reading.error(place, f"{name}not {wanted}", _rewrite(kind, given, wanted))
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = context.get("ge", context.get("le"))
        word = "at least" if kind == "greater_than_equal" else "at most"
        return reading.error(place, f"{name}out of range", f"write {word} {bound}")
    if kind == "too_short":
        return reading.error(place, f"{name}an empty list", "name at least one, or remove the key")
    if kind in ("too_long", "string_too_long"):
        return reading.error(place, f"{name}too long", f"write at most {context.get('max_length')}")
    return reading.error(place, f"{name}{error['msg']}", "see docs/reference/policy.md")


def _rewrite(kind: str, given: object, wanted: str) -> str:
    if kind == "bool_type" and isinstance(given, str) and given.lower() in ("yes", "on", "true", "no", "off", "false"):
        return f"write {'true' if given.lower() in ('yes', 'on', 'true') else 'false'}"
    if kind == "string_type" and isinstance(given, int):
        return 'quote it, as in "1"'
    if kind == "list_type":
        return "write it in brackets, as in [GET, POST], or as lines that start with -"
    if kind in ("int_type", "int_from_float"):
        return "write a whole number, without quotes, point or unit"
    return f"write {wanted}"


def _last_key(location: Location) -> str:
    key = next((part for part in reversed(location) if isinstance(part, str)), None)
    return f"{key}: " if key is not None and key.isprintable() else ""


def _named(location: Location) -> str:
    return _last_key(location) or "the policy "


def known_keys(location: Location, document: type[BaseModel] = TenantDocument) -> tuple[str, ...]:
    """The keys that the schema knows at a place of the document; empty where any name may stand."""
    kind: Any = document
    for step in location:
        kind = _bare(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(step))
            if field is None:
                return ()
            kind = field.annotation
        else:
            kind = get_args(kind)[-1] if get_args(kind) else NoneType
    kind = _bare(kind)
    return tuple(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else ()


def _bare(kind: Any) -> Any:
    """The annotation without `Annotated` and without `| None`."""
    while True:
        origin = get_origin(kind)
        if origin is Annotated:
            kind = get_args(kind)[0]
        elif origin in (Union, UnionType):
            kind = next(part for part in get_args(kind) if part is not NoneType)
        else:
            return kind
