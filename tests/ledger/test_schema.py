"""The table of record types: what it admits, and that it admits nothing else."""

import copy

import pytest

from ledger import RecordRefused
from ledger.schema import CONTENT, ENVELOPE, OWN_TYPES, RECORD, RESERVE_TYPES, check_content


def _all(records) -> list[tuple[str, str, dict[str, object]]]:
    return [
        records.activate(),
        records.intent("c_1"),
        records.outcome("c_1", 3),
        records.denied("d_1"),
        records.rejected(),
    ]


def test_the_fixtures_of_all_call_types_conform(records):
    for type_, tenant, content in _all(records):
        check_content(type_, tenant, content)


def _paths(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    if not isinstance(value, dict):
        return [path]
    return [path, *[inner for key, member in value.items() for inner in _paths(member, (*path, key))]]


def _changed(content: dict[str, object], path: tuple[object, ...], change) -> dict[str, object]:
    made = copy.deepcopy(content)
    place = made
    for key in path[:-1]:
        place = place[key]
    change(place, path[-1])
    return made


@pytest.mark.parametrize("wrong", [1.5, 2**53, -1, True, b"bytes", "\x00" * 5000, [["nested"]], {"zz": 1}])
def test_no_member_admits_a_value_of_another_kind(records, wrong):
    """Every leaf and every object of every call record, replaced by something that cannot be it."""
    for type_, tenant, content in _all(records):
        for path in _paths(content)[1:]:
            here = content
            for key in path:
                here = here[key]
            if type(here) is type(wrong) or isinstance(here, bool):
                continue

            def put(place, key):
                place[key] = wrong

            with pytest.raises(RecordRefused) as refused:
                check_content(type_, tenant, _changed(content, path, put))
            assert refused.value.code == "schema"


def test_an_unknown_member_is_refused_at_every_depth(records):
    for type_, tenant, content in _all(records):
        for path in _paths(content):
            target = content
            for key in path:
                target = target[key]
            if not isinstance(target, dict) or path[-1:] == ("fields",):
                continue

            def add(place, key):
                place[key]["surprise"] = 1

            made = {**content, "surprise": 1} if not path else _changed(content, path, add)
            with pytest.raises(RecordRefused):
                check_content(type_, tenant, made)


def test_a_required_member_that_is_absent_is_named(records):
    type_, tenant, content = records.intent("c_1")
    del content["decision"]
    with pytest.raises(RecordRefused, match="missing member decision"):
        check_content(type_, tenant, content)
    _, _, content = records.intent("c_1")
    made = copy.deepcopy(content)
    del made["decision"]["policy"]
    with pytest.raises(RecordRefused, match=r"missing member decision\.policy"):
        check_content(type_, tenant, made)


@pytest.mark.parametrize("tenant", ["", "a b", "../x", "ä", "-x", "x" * 65, "a\n"])
def test_a_tenant_is_a_plain_name(records, tenant):
    type_, _, content = records.denied("d_1")
    with pytest.raises(RecordRefused):
        check_content(type_, tenant, content)


def test_no_content_names_a_member_that_the_sequencer_assigns():
    assert [name for name, schema in CONTENT.items() if ENVELOPE & schema.members.keys()] == []


def test_the_tables_of_types_are_consistent():
    assert CONTENT.keys() == RECORD.keys()
    assert CONTENT.keys() >= OWN_TYPES
    assert CONTENT.keys() >= RESERVE_TYPES
    assert "call.intent" not in RESERVE_TYPES
