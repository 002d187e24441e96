"""Frozen dataclasses that are made on every call, made in a third of the time.

The `__init__` that dataclasses write for a frozen class sets each field by a call. Here the object is, for that moment,
of a class of the same layout that is not frozen, whose fields are set by plain assignment. Nobody else sees it then: it
is frozen when `__init__` returns, and everything else of the class is what dataclasses made of it.
"""

from dataclasses import MISSING, Field, fields
from typing import Any, Final

_ABSENT: Final = object()
"""In place of an argument whose default is made anew for each object."""


def swift[T](cls: type[T]) -> type[T]:
    """The same class, for a decorator above `@dataclass(frozen=True, slots=True)`.

    Raises `TypeError` for a class that it does not suit: one with a base, or with anything to do after its fields. So
    does a subclass of it, where it is defined.
    """
    found = fields(cls)  # type: ignore[arg-type]
    slots = tuple(cls.__dict__.get("__slots__", ()))
    plain = cls.__bases__ == (object,) and slots == tuple(field.name for field in found)
    if not plain or hasattr(cls, "__post_init__") or any(field.kw_only for field in found):
        raise TypeError(f"{cls.__name__} is not a plain frozen dataclass with slots")
    scope: dict[str, Any] = {
        "thaw": object.__dict__["__class__"].__set__,
        "thawed": type(cls.__name__, (), {"__slots__": slots}),
        "frozen": cls,
        "absent": _ABSENT,
        **{f"default_{field.name}": _default(field) for field in found},
    }
    parameters = ", ".join(["self", *(_parameter(field) for field in found if field.init)])
    lines = [f"def __init__({parameters}):", "    thaw(self, thawed)"]
    lines += [f"    self.{field.name} = {_value(field)}" for field in found]
    lines.append("    self.__class__ = frozen")
    exec("\n".join(lines), scope)  # noqa: S102 - of names of fields alone, as dataclasses do it
    made, before = scope["__init__"], cls.__init__
    made.__qualname__, made.__module__ = before.__qualname__, cls.__module__
    made.__annotations__ = before.__annotations__
    cls.__init__ = made  # type: ignore[method-assign]
    cls.__init_subclass__ = classmethod(_alone)  # type: ignore[assignment]
    return cls


def _alone(cls: type) -> None:
    raise TypeError(f"{cls.__name__}: objects of a swift class's subclass would become that class's own")


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory


def _parameter(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return f"{field.name}=absent"
    return field.name if field.default is MISSING else f"{field.name}=default_{field.name}"


def _value(field: Field[Any]) -> str:
    made = f"default_{field.name}()" if field.default_factory is not MISSING else f"default_{field.name}"
    if not field.init:
        return made
    return field.name if field.default_factory is MISSING else f"{made} if {field.name} is absent else {field.name}"
