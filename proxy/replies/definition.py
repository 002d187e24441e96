"""The digest of a tool's definition: SHA-256 over the object's canonical JSON (RFC 8785), with nothing left out.

A server that changes a word of a description, a schema or a field that nobody knows yet makes another tool of it.

Numbers are written as RFC 8785 section 3.2.2.3 has it, by the rules of ECMAScript for doubles, because schemas have
them (`"multipleOf": 0.5`): `1.0`, `1` and `1e0` are one definition, as they are one value to whoever reads JSON into
doubles. What no double holds exactly as a whole number, or at all, has no digest: such a tool is refused.
"""

import hashlib
import json
import math
from typing import Final

from proxy.replies.reading import Number, Value
from rules.content.strict_json import read_decimal, read_whole

_LARGEST_PLAIN: Final = 21
"""ECMAScript Number::toString: more digits before the point than this, and an exponent is written."""
_SMALLEST_PLAIN: Final = -6
_text: Final = json.JSONEncoder(ensure_ascii=False).encode
"""Section 3.2.2.2: what Python escapes here is what has to be, in the same form."""


def definition_digest(tool: Value) -> str:
    """`sha256:` and 64 hexadecimal digits. Raises `ContentRefused` for numbers that readers disagree about."""
    return f"sha256:{hashlib.sha256(canonical(tool).encode('utf-8')).hexdigest()}"


def canonical(value: Value) -> str:
    """RFC 8785. Raises `ContentRefused`."""
    match value:
        case dict():
            # Section 3.2.3: by UTF-16 code units, which differ from code points above U+FFFF.
            plain = "".join(value).isascii()
            names = sorted(value) if plain else sorted(value, key=lambda name: name.encode("utf-16-be"))
            return "{" + ",".join(f"{_text(name)}:{canonical(value[name])}" for name in names) + "}"
        case list():
            return "[" + ",".join(map(canonical, value)) + "]"
        case Number():
            return _number(value.text)
        case str():
            return _text(value)
        case _:
            return json.dumps(value)


def _number(text: str) -> str:
    if not set(".eE") & set(text):
        return str(read_whole(text))
    return ecmascript(float(read_decimal(text)))


def ecmascript(number: float) -> str:
    """A double as ECMAScript's Number::toString writes it: Python finds the same shortest digits, and puts them
    elsewhere."""
    if number == 0 or not math.isfinite(number):
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = f"{abs(number)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    count = len(digits)
    if count <= point <= _LARGEST_PLAIN:
        return sign + digits + "0" * (point - count)
    if 0 < point <= _LARGEST_PLAIN:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if _SMALLEST_PLAIN < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    shown = digits if count == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{sign}{shown}e{point - 1:+d}"
