"""A frozen dataclass that is made faster is the same in everything else."""

import copy
import dataclasses
import inspect
import pickle
from dataclasses import dataclass, field

import pytest

from rules.claims import SpendClaim
from rules.swift import swift


@dataclass(frozen=True, slots=True)
class Plain:
    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list)
    d: int = field(default=4, init=False, compare=False)


@swift
@dataclass(frozen=True, slots=True)
class Swift:
    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list)
    d: int = field(default=4, init=False, compare=False)


def test_its_fields_are_what_dataclasses_would_have_set() -> None:
    for args, named in (((1,), {}), ((1, "x"), {"c": [2]}), ((), {"a": 5, "b": "y"})):
        assert dataclasses.astuple(Swift(*args, **named)) == dataclasses.astuple(Plain(*args, **named))  # type: ignore[arg-type]
    assert Swift(1).c is not Swift(1).c


def test_it_is_frozen_and_of_its_class() -> None:
    made = Swift(1)
    assert type(made) is Swift
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.a = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.a  # type: ignore[misc]


def test_arguments_are_refused_as_before() -> None:
    for args, named in (((), {}), ((1, "b", [], 4), {}), ((1,), {"d": 5}), ((1,), {"a": 1})):
        with pytest.raises(TypeError):
            Plain(*args, **named)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            Swift(*args, **named)  # type: ignore[arg-type]
    names = list(inspect.signature(Plain).parameters)
    assert list(inspect.signature(Swift).parameters) == names


def test_copies_replacements_and_equality_hold() -> None:
    made = Swift(1, "x", [2])
    assert copy.copy(made) == copy.deepcopy(made) == dataclasses.replace(made) == made
    assert dataclasses.replace(made, a=2) == Swift(2, "x", [2])
    claim = SpendClaim(("t", "a"), "2026", 5, 1, "USD", 0)
    assert pickle.loads(pickle.dumps(claim)) == claim
    assert len({claim, dataclasses.replace(claim)}) == 1
    assert repr(made) == repr(Plain(1, "x", [2])).replace("Plain", "Swift")


def test_a_class_with_a_base_or_something_to_do_afterwards_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Base:
        a: int

    @dataclass(frozen=True, slots=True)
    class Child(Base):
        b: int

    @dataclass(frozen=True, slots=True)
    class After:
        a: int

        def __post_init__(self) -> None:
            raise AssertionError("never made")

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Named:
        a: int

    @dataclass(frozen=True)
    class WithoutSlots:
        a: int

    for unsuited in (Child, After, Named, WithoutSlots):
        with pytest.raises(TypeError, match="not a plain frozen dataclass"):
            swift(unsuited)


def test_a_subclass_is_refused_where_it_is_defined() -> None:
    """Its objects would be frozen as what they are not."""
    with pytest.raises(TypeError, match="would become"):

        class Below(Swift):
            __slots__ = ()
