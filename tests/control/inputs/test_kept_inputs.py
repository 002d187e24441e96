"""Decision inputs on the disk: sealed, bound to their row, bounded in memory, erased and forgotten for good."""

import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control.inputs import KeptInputs, Opened, Selection, kept
from control.stores.sqlite import StoreUnavailable
from credentials.envelope import KeyEncryptionKey
from proxy.deciding import Decided

CANARY = b'{"inputs":2,"canary":"4242-4242-4242-4242"}'
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def decided(number: int, *, tenant: str = "acme", account: str = "agent", at: datetime = NOON) -> Decided:
    return Decided(f"c_{number}", tenant, account, at, "sha256:p", None, "all", CANARY + str(number).encode())


@contextmanager
def keeping(
    folder: Path, keep: Callable[[str], int] = lambda _: 0xFFFFFFFF, *, start: bool = True
) -> Iterator[KeptInputs]:
    path = folder / "kek.key"
    kek = KeyEncryptionKey.load(path) if path.exists() else KeyEncryptionKey.create(path)
    (folder / "keys").mkdir(exist_ok=True)
    store = KeptInputs(folder / "inputs.sqlite", folder / "keys" / "inputs.sqlite", kek, keep)
    if start:
        store.start()
    try:
        yield store
    finally:
        store.close()


def everything(store: KeptInputs, chosen: Selection = Selection(), at_most: int = 2) -> list[Opened]:  # noqa: B008
    found: list[Opened] = []
    place: tuple[int, int] | None = (-1, 0)
    while place is not None:
        page, place = store.page(chosen, place, at_most=at_most, bytes_at_most=10_000)
        found += page
    return found


def inputs(found: list[Opened]) -> dict[str, bytes | None]:
    return {one.row.call: one.inputs for one in found}


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_what_was_handed_over_comes_back_in_the_order_of_time_and_is_nowhere_in_plain(tmp_path: Path) -> None:
    with keeping(tmp_path) as store:
        for number in range(5):
            store.keep(decided(number, at=NOON - number * DAY, tenant="acme" if number % 2 else "globex"))
        assert [one.row.call for one in everything(store)] == ["c_4", "c_3", "c_2", "c_1", "c_0"]
        assert inputs(everything(store)) == {f"c_{n}": CANARY + str(n).encode() for n in range(5)}
        assert list(inputs(everything(store, Selection(tenant="acme")))) == ["c_3", "c_1"]
        late = Selection(since=NOON - DAY, before=NOON)
        assert list(inputs(everything(store, late))) == ["c_1"]
        assert (store.stored, store.waiting, store.losses) == (5, 0, kept.Losses(0, 0, None))
        assert b"4242" not in on_disk(tmp_path)
        for path in (tmp_path / "inputs.sqlite", tmp_path / "keys" / "inputs.sqlite"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with keeping(tmp_path) as again:
        found = again.find("c_3")
        assert found is not None
        assert found.inputs == CANARY + b"3"
        assert again.find("c_9") is None
    assert b"4242" not in on_disk(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "call = 'c_9'", "at = at + 1", "tenant = 'globex'", "account = 'other'", "policy = 'sha256:q'", "rule = 'allx'",
        "code = 'rule_denied'", "rule = NULL", "sealed = substr(sealed, 1, 20)", "sealed = x''",
        "policy = 'sha256:pall', rule = ''",
    ],
)  # fmt: skip
def test_a_row_that_was_changed_in_any_column_does_not_open(tmp_path: Path, change: str) -> None:
    with keeping(tmp_path) as store:
        store.keep(decided(1))
        store.keep(decided(2, tenant="globex"))
    with sqlite3.connect(tmp_path / "inputs.sqlite") as connection:
        assert connection.execute(f"UPDATE kept SET {change} WHERE call = 'c_1'").rowcount == 1
    connection.close()
    with keeping(tmp_path) as store:
        opened = inputs(everything(store))
        assert opened.pop("c_2") == CANARY + b"2"
        assert list(opened.values()) == [None]
    shutil.copy(tmp_path / "kek.key", tmp_path / "old.key")
    (tmp_path / "kek.key").unlink()
    with keeping(tmp_path) as store:
        assert set(inputs(everything(store)).values()) == {None}


def test_what_comes_too_fast_is_lost_and_counted_and_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAX_WAITING", 3)
    with keeping(tmp_path, start=False) as store:
        for number in range(5):
            store.keep(decided(number))
        assert (store.waiting, store.losses.queue) == (3, 2)
        store.start()
        assert len(everything(store)) == 3
    monkeypatch.setattr(kept, "MAX_WAITING_BYTES", 2 * len(CANARY))
    with keeping(tmp_path, start=False) as store:
        for number in range(10, 15):
            store.keep(decided(number))
        assert (store.waiting, store.losses.queue) == (1, 4)


def test_a_disk_that_does_not_take_them_loses_them_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "inputs.sqlite").mkdir()
    with keeping(tmp_path) as store:
        store.keep(decided(1))
        store.flush()
        assert (store.stored, store.losses.store) == (0, 1)
        assert "inputs.sqlite" in (store.losses.fault or "")
        with pytest.raises(StoreUnavailable):
            store.find("c_1")
        (tmp_path / "inputs.sqlite").rmdir()
        store.keep(decided(2))
        store.flush()
        assert (store.stored, store.losses) == (1, kept.Losses(0, 1, None))


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (Selection(call="c_2"), {1, 3, 4}),
        (Selection(account="other"), {1, 2, 3}),
        (Selection(tenant="globex"), {1, 2, 4}),
        (Selection(before=NOON), {3, 4}),
        (Selection(before=NOON, tenant="globex"), {1, 2, 3, 4}),
    ],
    ids=["call", "account", "tenant", "before", "both"],
)
def test_what_is_erased_is_in_no_file_and_is_known_to_be_erased(
    tmp_path: Path, chosen: Selection, left: set[int]
) -> None:
    with keeping(tmp_path) as store:
        store.keep(decided(1, at=NOON - DAY))
        store.keep(decided(2, at=NOON - timedelta(seconds=1)))
        store.keep(decided(3, tenant="globex"))
        store.keep(decided(4, account="other"))
        sealed = {one.row.call: one.row.sealed for one in everything(store)}
        assert store.count(chosen) == 4 - len(left)
        assert store.erase(chosen) == 4 - len(left)
        assert store.count(chosen) == 0
        after = everything(store)
        assert {int(one.row.call[2:]) for one in after if one.inputs is not None} == left
        for one in after:
            number = int(one.row.call[2:])
            assert (one.row.sealed is None) is (number not in left)
            assert ((sealed[one.row.call] or b"?") in on_disk(tmp_path)) is (number in left)


def test_a_day_goes_with_its_key_so_that_a_copy_of_the_rows_opens_no_more(tmp_path: Path) -> None:
    keep = {"acme": 2 * 86_400, "globex": 90 * 86_400}
    with keeping(tmp_path, lambda tenant: keep[tenant]) as store:
        for number in range(5):
            store.keep(decided(number, at=NOON - number * DAY))
            store.keep(decided(10 + number, at=NOON - number * DAY, tenant="globex"))
        store.flush()
    shutil.copy(tmp_path / "inputs.sqlite", tmp_path / "backup")
    with keeping(tmp_path, lambda tenant: keep[tenant], start=False) as store:
        assert store.expire(NOON) == 2  # the day that ended less than two days ago stays
        assert list(inputs(everything(store, Selection(tenant="acme")))) == ["c_2", "c_1", "c_0"]
        assert len(everything(store, Selection(tenant="globex"))) == 5
        assert store.expire(NOON) == 0
    shutil.copy(tmp_path / "backup", tmp_path / "inputs.sqlite")
    with keeping(tmp_path, lambda tenant: keep[tenant], start=False) as store:
        opened = inputs(everything(store, Selection(tenant="acme")))
        assert [call for call, data in opened.items() if data is None] == ["c_4", "c_3"]
        keep["globex"] = 0
        store.expire(NOON)
        store.keep(decided(20, tenant="globex"))
        assert store.waiting == 0
        assert everything(store, Selection(tenant="globex")) == []


def test_erasing_what_lies_before_a_date_destroys_the_keys_of_its_days(tmp_path: Path) -> None:
    with keeping(tmp_path) as store:
        store.keep(decided(1, at=NOON - DAY))
        store.keep(decided(2))
        store.flush()
    shutil.copy(tmp_path / "inputs.sqlite", tmp_path / "backup")
    with keeping(tmp_path, start=False) as store:
        assert store.erase(Selection(before=NOON)) == 1
    shutil.copy(tmp_path / "backup", tmp_path / "inputs.sqlite")
    with keeping(tmp_path, start=False) as store:
        assert inputs(everything(store)) == {"c_1": None, "c_2": CANARY + b"2"}


def test_what_is_waiting_when_it_ends_is_stored(tmp_path: Path) -> None:
    with keeping(tmp_path) as store:
        for number in range(2_500):
            store.keep(decided(number))
    with keeping(tmp_path, start=False) as store:
        assert len(everything(store, at_most=1_000)) == 2_500
