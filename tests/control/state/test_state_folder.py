"""The folder: private, held by one, and never half of two installations."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from control.state import State, StateInvalid, StateLocked
from control.stores.lock_store import SqliteLockStore, open_register
from control.stores.sqlite import Database
from credentials.actor import Actor
from credentials.secret import Secret
from ledger import Trust


def modes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.lstat().st_mode & 0o077 for p in [folder, *folder.rglob("*")]}


def test_nothing_in_it_is_open_to_others_whatever_the_umask(folder: Path, ana: Actor) -> None:
    old = os.umask(0)
    try:
        with State.open(folder, create=True) as state:
            state.set_secret("acme", "s", Secret("canary"), ana)
            exposed = {name for name, mode in modes(folder).items() if mode and not name.endswith("trust.policy")}
    finally:
        os.umask(old)
    assert exposed == set()


def test_no_file_holds_a_secret_in_the_clear(folder: Path, ana: Actor) -> None:
    with State.open(folder, create=True) as state:
        state.set_secret("acme", "s", Secret("canary-5f1d9c7e"), ana)
        state.set_secret("acme", "s", Secret("canary-5f1d9c7e-2"), ana)
        during = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    after = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not [data for data in (*during, *after) if b"canary" in data]


def test_a_state_that_is_missing_is_not_made_unless_asked(folder: Path) -> None:
    with pytest.raises(StateInvalid, match="no state"):
        State.open(folder, create=False)
    assert not folder.exists()
    folder.mkdir(mode=0o700)
    with pytest.raises(StateInvalid, match="no state"):
        State.open(folder, create=False)


def test_a_folder_with_other_files_is_not_taken_over(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "thesis.txt").write_text("x")
    with pytest.raises(StateInvalid, match="other files"):
        State.open(folder, create=True)
    assert [entry.name for entry in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("which", [".", "keys"])
@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_an_exposed_folder_is_refused_with_the_fix(folder: Path, which: str, mode: int) -> None:
    State.open(folder, create=True).close()
    (folder / which).chmod(mode)
    with pytest.raises(StateInvalid, match="chmod 700"):
        State.open(folder, create=False)
    (folder / which).chmod(0o700)
    State.open(folder, create=False).close()


def test_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    State.open(folder, create=True).close()
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(StateInvalid, match="not a folder"):
        State.open(tmp_path / "link", create=True)


def test_a_second_holder_is_refused_and_told_whom_to_ask(state: State, folder: Path) -> None:
    with pytest.raises(StateLocked) as locked:
        State.open(folder, create=False)
    assert locked.value.pid == os.getpid()
    assert state.ledger.head().halted is None


def test_the_lock_of_a_killed_process_is_free(folder: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from control.state import State\n"
        "s = State.open(Path(sys.argv[1]), create=True); print('open', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    with pytest.raises(StateLocked) as locked:
        State.open(folder, create=False)
    assert locked.value.pid == child.pid
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    State.open(folder, create=False).close()


def test_the_trust_file_names_the_ledger_and_is_never_rewritten(folder: Path) -> None:
    with State.open(folder, create=True) as state:
        assert Trust.parse((folder / "trust.policy").read_text()).origin == f"exeat/{state.instance}"
    (folder / "trust.policy").write_text("mine")
    State.open(folder, create=False).close()
    assert (folder / "trust.policy").read_text() == "mine"


class TestPartsThatDoNotBelongTogether:
    @pytest.mark.parametrize("key", ["kek.key", "token.pem", "ledger-hot.pem"])
    def test_an_exposed_key(self, folder: Path, key: str) -> None:
        State.open(folder, create=True).close()
        (folder / "keys" / key).chmod(0o644)
        with pytest.raises(StateInvalid, match="600"):
            State.open(folder, create=False)

    def test_a_missing_kek_is_not_replaced(self, folder: Path) -> None:
        State.open(folder, create=True).close()
        (folder / "keys" / "kek.key").unlink()
        with pytest.raises(StateInvalid, match="does not exist"):
            State.open(folder, create=True)
        assert not (folder / "keys" / "kek.key").exists()

    def test_the_kek_of_another_state(self, folder: Path, tmp_path: Path) -> None:
        State.open(folder, create=True).close()
        State.open(tmp_path / "other", create=True).close()
        shutil.copy(tmp_path / "other" / "keys" / "kek.key", folder / "keys" / "kek.key")
        with pytest.raises(StateInvalid, match="secrets need"):
            State.open(folder, create=False)

    def test_a_missing_ledger_is_not_replaced_by_an_empty_one(self, folder: Path) -> None:
        State.open(folder, create=True).close()
        shutil.rmtree(folder / "ledger")
        with pytest.raises(StateInvalid, match="lost its ledger"):
            State.open(folder, create=True)

    def test_a_ledger_and_its_register_missing_together(self, folder: Path) -> None:
        State.open(folder, create=True).close()
        shutil.rmtree(folder / "ledger")
        (folder / "register.sqlite").unlink()
        with pytest.raises(StateInvalid, match="lost its ledger"):
            State.open(folder, create=True)

    def test_a_missing_register_is_not_replaced_by_an_empty_one(self, folder: Path) -> None:
        State.open(folder, create=True).close()
        (folder / "register.sqlite").unlink()
        with pytest.raises(StateInvalid, match="store was lost"):
            State.open(folder, create=True)

    def test_a_register_restored_from_before_is_noticed(self, folder: Path, tmp_path: Path) -> None:
        State.open(folder, create=True).close()
        shutil.copy(folder / "register.sqlite", tmp_path / "backup")
        State.open(folder, create=False).close()
        shutil.copy(tmp_path / "backup", folder / "register.sqlite")
        with pytest.raises(StateInvalid, match="restored"):
            State.open(folder, create=False)

    def test_a_missing_database_is_not_replaced_by_an_empty_one(self, folder: Path) -> None:
        State.open(folder, create=True).close()
        for path in folder.glob("exeat.sqlite*"):
            path.unlink()
        with pytest.raises(StateInvalid):
            State.open(folder, create=True)

    @pytest.mark.parametrize("left", ["kek.key", "token.pem", "ledger-root.pem", "ledger-hot.pem"])
    def test_a_key_alone_says_that_there_was_a_state(self, folder: Path, left: str) -> None:
        """A new state would begin at epoch 0, where no revocation of the old one counts."""
        State.open(folder, create=True).close()
        for path in (*folder.glob("*.sqlite*"), folder / "trust.policy"):
            path.unlink()
        shutil.rmtree(folder / "ledger")
        for path in (folder / "keys").iterdir():
            if path.name != left:
                path.unlink()
        for _ in range(2):
            with pytest.raises(StateInvalid, match="lost its database") as invalid:
                State.open(folder, create=True)
            assert "from a backup" in invalid.value.fix
        assert sorted(path.name for path in folder.iterdir()) == ["LOCK", "keys"]

    def test_a_database_restored_from_before_is_noticed(self, folder: Path, tmp_path: Path, ana: Actor) -> None:
        State.open(folder, create=True).close()
        shutil.copy(folder / "exeat.sqlite", tmp_path / "backup")
        with State.open(folder, create=False) as state:
            state.record_act(ana, "look", {})
        shutil.copy(tmp_path / "backup", folder / "exeat.sqlite")
        with pytest.raises(StateInvalid, match="restored"):
            State.open(folder, create=False)

    def test_a_ledger_restored_from_before_is_noticed(self, folder: Path, tmp_path: Path, ana: Actor) -> None:
        State.open(folder, create=True).close()
        shutil.copytree(folder / "ledger", tmp_path / "backup")
        with State.open(folder, create=False) as state:
            state.record_act(ana, "look", {})
        shutil.rmtree(folder / "ledger")
        shutil.copytree(tmp_path / "backup", folder / "ledger")
        with pytest.raises(StateInvalid, match="lost"):
            State.open(folder, create=False)


class TestARegisterOfAnEarlierVersion:
    """It stood in the state's database."""

    @staticmethod
    def _put_back(folder: Path) -> bytes:
        register = open_register(folder / "register.sqlite")
        note = SqliteLockStore(register).load()
        register.close()
        assert note is not None
        database = Database.open(folder / "exeat.sqlite")
        with database.transaction() as connection:
            connection.execute("INSERT INTO newest_checkpoint (one, note) VALUES (1, ?)", (note,))
        database.close()
        return note

    @staticmethod
    def _held(folder: Path) -> int:
        database = Database.open(folder / "exeat.sqlite")
        rows = len(database.query("SELECT 1 FROM newest_checkpoint"))
        database.close()
        return rows

    @pytest.mark.parametrize("crashed", [False, True], ids=["first time", "after a crash between the two files"])
    def test_is_taken_over(self, folder: Path, crashed: bool) -> None:
        State.open(folder, create=True).close()
        self._put_back(folder)
        if not crashed:
            (folder / "register.sqlite").unlink()
        State.open(folder, create=False).close()
        assert self._held(folder) == 0
        State.open(folder, create=False).close()

    def test_is_refused_beside_another(self, folder: Path) -> None:
        State.open(folder, create=True).close()
        note = self._put_back(folder)
        register = open_register(folder / "register.sqlite")
        SqliteLockStore(register).compare_and_swap(note, b"another")
        register.close()
        with pytest.raises(StateInvalid, match="two newest checkpoints"):
            State.open(folder, create=False)
        assert self._held(folder) == 1


def test_what_failed_to_open_leaves_no_lock_behind(folder: Path) -> None:
    State.open(folder, create=True).close()
    key = folder / "keys" / "token.pem"
    key.chmod(0o644)
    for _ in range(2):
        with pytest.raises(StateInvalid, match="600"):
            State.open(folder, create=False)
    key.chmod(0o600)
    State.open(folder, create=False).close()


def test_closing_twice_is_closing_once(folder: Path) -> None:
    state = State.open(folder, create=True)
    state.close()
    state.close()
    State.open(folder, create=False).close()
