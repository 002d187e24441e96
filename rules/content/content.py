"""A body as rules read it: the value that it stands for, whatever form it was sent in."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, cast

from rules.content.form import Nested, nested, read_form
from rules.content.media_type import read_media_type
from rules.content.multipart import Part, read_multipart
from rules.content.refused import ContentRefused
from rules.content.strict_json import Json, read_json

type Value = str | int | float | bool | list["Value"] | dict[str, "Value"] | None


@dataclass(frozen=True, slots=True)
class Content:
    """What a rule sees of a body."""

    value: Value
    """JSON as it is, with fractions as doubles; a form as a map; a multipart form as a map, in which a file is a map of
    `filename`, `type` and `size`; an empty map where there is no body."""
    form: bool = field(default=False, compare=False)
    """Whether it was a form, of either kind."""


_OVERRIDES: Final = frozenset({"_method", "_httpmethod"})
NOTHING: Final = Content({})


def read_content(content_types: tuple[bytes, ...], body: bytes) -> Content:
    """The body, by its one Content-Type. Raises `ContentRefused` for what cannot be read in exactly one way."""
    if not body:
        return NOTHING
    if len(content_types) != 1:
        raise ContentRefused("a rule reads the body, and it has no Content-Type, or several")
    media = read_media_type(content_types[0])
    if media.is_json:
        return Content(as_doubles(read_json(body)))
    if media.is_form:
        return _form(cast("Value", read_form(body)))
    if media.is_multipart_form:
        parts = read_multipart(body, media.parameter("boundary"))
        return _form(_parts(nested((part.name, part) for part in parts)))
    raise ContentRefused("a rule reads the body, and it is neither JSON nor a form")


def says_form(content_types: tuple[bytes, ...]) -> bool:
    """Whether a body that could be read was a form, by its Content-Type."""
    if len(content_types) != 1:
        return False
    media = read_media_type(content_types[0])
    return not media.is_json and (media.is_form or media.is_multipart_form)


def _form(fields: Value) -> Content:
    # Rails, Laravel, Symfony and Express read the first, Salesforce the second.
    if isinstance(fields, dict) and not _OVERRIDES.isdisjoint(map(str.lower, fields)):
        raise ContentRefused("the form has a field by which some frameworks replace the method")
    return Content(fields, form=True)


def _parts(value: "Nested[Part] | list[Part | Nested[Part]] | Part") -> Value:
    match value:
        case dict():
            return {name: _parts(member) for name, member in value.items()}
        case list():
            return [_parts(item) for item in value]
        case _:
            return _part(value)


def _part(part: Part) -> Value:
    if part.filename is not None:
        kind = "" if part.content_type is None else read_media_type(part.content_type).essence
        return {"filename": part.filename, "type": kind, "size": len(part.content)}
    try:
        return part.content.decode("utf-8")
    except UnicodeDecodeError:
        raise ContentRefused("a field of the multipart body is not UTF-8") from None


def as_doubles(value: Json | Value) -> Value:
    """The same with fractions as doubles, which is how conditions read them; what has none stays as it is."""
    match value:
        case Decimal():
            return float(value)
        case dict():
            return {name: as_doubles(member) for name, member in value.items()}
        case list():
            return [as_doubles(item) for item in value]
        case _:
            return value
