"""Our own frozen dataclasses as JSON and back, for the operators' socket and for `--json`.

The client that reads these answers trusts the server (same machine, same user), so this checks shapes to notice two
versions talking to each other, not to resist an attacker; requests to the server are validated by pydantic models.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

type Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


class CodecError(Exception):
    """The value does not have the shape: most likely two versions of the program talk to each other."""


def to_json(value: object) -> Json:
    """The value as JSON types. A `Secret` is refused: what may show one says so itself."""
    if isinstance(value, Enum):
        return to_json(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise CodecError(f"a {type(value).__name__} is never written as JSON")


def from_json[T](kind: type[T], value: object) -> T:
    """An instance of `kind`, which is a frozen dataclass. Raises `CodecError`."""
    return typing.cast("T", _read(kind, value, kind.__name__))


def _read(kind: object, value: object, where: str) -> object:
    origin = typing.get_origin(kind)
    if origin is types.UnionType or origin is typing.Union:
        if value is None and type(None) in typing.get_args(kind):
            return None
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return _read(options[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise CodecError(f"{where} is no list")
        item_kind = typing.get_args(kind)[0]
        return tuple(_read(item_kind, item, where) for item in value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise CodecError(f"{where} is no object")
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        if set(value) != set(names):
            raise CodecError(f"{where} has other members: {sorted(set(value) ^ set(names))}")
        return kind(**{name: _read(hints[name], value[name], f"{where}.{name}") for name in names})
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise CodecError(f"{where} is a {type(value).__name__}")
