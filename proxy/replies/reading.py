"""JSON of an origin: read strictly in its structure, exactly in its values, so that it can be written again.

Stricter than most readers where they differ about what there is (names given twice, depth, what is no JSON); not about
values, which are none of the filter's business: numbers are kept as they were written, since results of tools have
whole numbers beyond 2^53, and clients that read them.
"""

import json
from dataclasses import dataclass
from typing import Final, NoReturn

from rules.content.refused import ContentRefused
from rules.content.strict_json import MAX_DEPTH, check_shape

type Value = str | Number | bool | list["Value"] | dict[str, "Value"] | None

MAX_VALUES: Final = 50_000
"""Members and items in one message; more than any list of tools has, and some tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written."""

    text: str


def read_value(data: bytes) -> Value:
    """The one value that the bytes are the JSON of. Raises `ContentRefused`."""
    check_shape(data, MAX_VALUES)
    try:
        value: Value = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ContentRefused("the JSON is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ContentRefused(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ContentRefused(f"the JSON is nested deeper than {MAX_DEPTH}") from None
    return value


def write_value(value: Value) -> str:
    """JSON of the value, ASCII alone: no reader finds the end of a line in it."""
    match value:
        case dict():
            return "{" + ",".join(f"{_text(name)}:{write_value(member)}" for name, member in value.items()) + "}"
        case list():
            return "[" + ",".join(map(write_value, value)) + "]"
        case Number():
            return value.text
        case _:
            return _text(value)


def _members(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ContentRefused("a JSON object has a name twice")
    return members


def _constant(name: str) -> NoReturn:
    raise ContentRefused(f"not JSON: {name} is no number")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=Number, parse_float=Number, parse_constant=_constant
)
_text: Final = json.JSONEncoder().encode
