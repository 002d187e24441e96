"""JSON that every parser in use reads alike (RFC 8259, and RFC 7493 where that is stricter).

Refused, because known parsers differ: keys given twice (first wins, last wins, error), also when they differ by case
alone (Go matches fields without regard to case), NaN and Infinity, numbers that a double does not hold, lone
surrogates, U+0000, a byte order mark, other encodings than UTF-8, comments, trailing commas, bytes behind the value,
and nesting beyond what common parsers take. So is what has more values than conditions can be asked about in time.
"""

import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Final, NoReturn

from rules.content.refused import ContentRefused

type Json = str | int | Decimal | bool | list["Json"] | dict[str, "Json"] | None

MAX_DEPTH: Final = 32
"""Of arrays and objects inside each other; .NET's default of 64 and PHP's of 512 are the lowest in use."""
MAX_VALUES: Final = 20_000
"""Members and items in all. Each condition that reads a body walks over all of them on the loop: some 7 ms at this
bound, some 90 ms for a megabyte of the smallest ones."""
MAX_NUMBER: Final = 64
"""Characters."""
_SAFE: Final = 2**53 - 1
"""RFC 8259 section 6: beyond it a reader that keeps doubles has another whole number."""
_ODD_ESCAPE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""Text, also without its end: were that no match, each quote in it would be tried as another beginning."""
_BRACKETS: Final = re.compile(rb"[^\[\]{}]+")


def read_json(data: bytes) -> Json:
    """The value. Numbers are `int` or `Decimal`, exact as written. Raises `ContentRefused`."""
    check_shape(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ContentRefused("the JSON is not UTF-8") from None
    try:
        value: Json = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        # Its message names the kind of mistake and a place, and quotes nothing.
        raise ContentRefused(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ContentRefused(f"the JSON is nested deeper than {MAX_DEPTH}") from None
    if has_odd_text(data):
        check_text(value)
    return value


def has_odd_text(data: bytes) -> bool:
    """False where `check_text` would find nothing in the value of this JSON."""
    return _ODD_ESCAPE.search(data) is not None or b"\x00" in data


def check_shape(data: bytes, max_values: int = MAX_VALUES) -> None:
    """Before the parser: it recurses, and what is deep or made of little costs more than its bytes say. Raises
    `ContentRefused`."""
    opened = data.count(b"[") + data.count(b"{")
    if opened <= MAX_DEPTH and opened + data.count(b",") < max_values:
        return
    bare = _QUOTED.sub(b"", data)
    if bare.count(b"[") + bare.count(b"{") + bare.count(b",") >= max_values:
        raise ContentRefused(f"the JSON has more than {max_values} values")
    depth = 0
    for byte in _BRACKETS.sub(b"", bare):
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ContentRefused(f"the JSON is nested deeper than {MAX_DEPTH}")
        else:
            depth -= 1


def check_text(value: Json) -> None:
    """No text in it is cut short or refused by any reader. Raises `ContentRefused`."""
    waiting: list[Json] = [value]
    while waiting:
        match waiting.pop():
            case str(text):
                if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
                    raise ContentRefused("the JSON has text with U+0000 or half of a surrogate pair")
            case dict(members):
                waiting.extend(members)
                waiting.extend(members.values())
            case list(items):
                waiting.extend(items)
            case _:
                pass


def _members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len({name.casefold() for name in members}) != len(pairs):
        raise ContentRefused("a JSON object has a key twice, perhaps with other capitals")
    return members


def read_whole(text: str) -> int:
    """A whole number that a double holds. Raises `ContentRefused`."""
    if len(text) > MAX_NUMBER:
        raise ContentRefused("the JSON has a number that is too long")
    number = int(text)
    if abs(number) > _SAFE:
        raise ContentRefused("the JSON has a whole number beyond 2^53; send it as text")
    return number


def read_decimal(text: str) -> Decimal:
    """A number with a fraction or an exponent, exact as written; a double can stand for it. Raises `ContentRefused`."""
    if len(text) > MAX_NUMBER:
        raise ContentRefused("the JSON has a number that is too long")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ContentRefused("the JSON has a number that no double holds") from None
    as_double = float(text)
    # An underflow is zero to one reader and a value to another.
    if math.isinf(as_double) or (as_double == 0.0) != number.is_zero():
        raise ContentRefused("the JSON has a number that no double holds")
    return number


def _constant(name: str) -> NoReturn:
    raise ContentRefused(f"not JSON: {name} is no number")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=read_whole, parse_float=read_decimal, parse_constant=_constant
)
