"""One byte string for one value: JSON under a restricted profile of RFC 8785 (JCS).

The profile: objects, arrays, strings, integers within +-(2^53 - 1), booleans and null. Keys are ASCII, so that sorting
by code point and by UTF-16 unit (RFC 8785, 3.2.3) are the same. No floats. No lone surrogates. Under these restrictions
orjson, the standard library and RFC 8785 give the same bytes; a property test holds them together.

orjson is used when it is installed (1 us a record against 10). An auditor's machine needs the standard library only.
"""

import json
import re
from typing import Final

try:
    import orjson

    HAS_ORJSON = True
except ImportError:  # the auditor's installation: only the standard library and cryptography
    HAS_ORJSON = False

MAX_INT: Final = 2**53 - 1
"""RFC 7493 (I-JSON), 2.2: integers beyond this lose precision in readers that use doubles."""

_ASCII_KEY = re.compile(r"[\x20-\x7e]+").fullmatch


class NotCanonical(ValueError):
    """The bytes or the value do not follow the profile."""


def encode_stdlib(value: object) -> bytes:
    """The canonical bytes of a value that follows the profile, by the standard library.

    Raises `NotCanonical` for what JSON cannot carry. Does not look for floats: schemas do.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "strict")
    except (TypeError, ValueError, RecursionError) as error:
        raise NotCanonical(str(error)) from None


def decode_stdlib(data: bytes) -> object:
    """The value of UTF-8 JSON text, by the standard library; raises `NotCanonical`."""
    try:
        value: object = json.loads(data.decode("utf-8", "strict"))
    except (ValueError, RecursionError) as error:
        raise NotCanonical(str(error)) from None
    return value


if HAS_ORJSON:
    _dumps = orjson.dumps
    _loads = orjson.loads
    _SORT = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

    def encode_fast(value: object) -> bytes:
        """As `encode_stdlib`, by orjson."""
        try:
            return _dumps(value, None, _SORT)
        except (TypeError, RecursionError) as error:
            raise NotCanonical(str(error)) from None

    def decode_fast(data: bytes) -> object:
        """As `decode_stdlib`, by orjson."""
        try:
            value: object = _loads(data)
        except ValueError as error:
            raise NotCanonical(str(error)) from None
        return value

    encode = encode_fast
    decode = decode_fast
else:
    encode = encode_stdlib
    decode = decode_stdlib


def parse_typed(data: bytes) -> object:
    """The value of canonical bytes whose leaves the caller checks against a schema that admits no floats.

    Re-encoding and comparing refuses duplicate keys, white space, other escapes, trailing bytes and other orders in one
    step: of all texts of a value only one survives. Raises `NotCanonical`.
    """
    value = decode(data)
    if encode(value) != data:
        raise NotCanonical("the bytes are not the canonical form of their value")
    return value


def parse(data: bytes) -> object:
    """The value of canonical bytes, every leaf checked against the profile. Raises `NotCanonical`."""
    value = parse_typed(data)
    check(value)
    return value


def check(value: object) -> None:
    """The value follows the profile, or `NotCanonical` is raised. For values without a schema; walks everything."""
    pending = [value]
    while pending:
        item = pending.pop()
        if type(item) is dict:
            for key, member in item.items():
                if not isinstance(key, str) or _ASCII_KEY(key) is None:
                    raise NotCanonical("keys must be printable ASCII")
                pending.append(member)
        elif type(item) is list:
            pending.extend(item)
        elif type(item) is int:
            if not -MAX_INT <= item <= MAX_INT:
                raise NotCanonical("integer beyond 2^53 - 1")
        elif type(item) is str:
            try:
                item.encode("utf-8", "strict")
            except UnicodeEncodeError:
                raise NotCanonical("lone surrogate") from None
        elif item is not None and type(item) is not bool:
            raise NotCanonical(f"{type(item).__name__} is not part of the profile")
