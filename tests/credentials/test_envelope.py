"""A sealed secret opens for its own tenant, name, version and KEK, and for nothing else."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credentials.envelope import KeyEncryptionKey, SealBroken, SealedSecret, seal, unseal
from credentials.keyfile import KeyFileRefused, create_key_file, read_key_file
from credentials.secret import Secret

KEK = KeyEncryptionKey(b"k" * 32)


@given(st.binary(min_size=1, max_size=300))
def test_what_was_sealed_comes_back(value: bytes) -> None:
    sealed = seal(KEK, "acme", "zendesk/prod", 1, Secret(value))
    assert unseal(KEK, sealed).reveal() == value
    assert len(value) < 8 or value not in sealed.sealed


def test_two_seals_of_one_secret_share_nothing_but_the_frame() -> None:
    one, two = (seal(KEK, "acme", "n", 1, Secret("same")).sealed for _ in range(2))
    assert one[:12] == two[:12]
    assert one[12:24] != two[12:24]
    assert one[-20:] != two[-20:]


@pytest.mark.parametrize(
    "moved",
    [("globex", "n", 1), ("acme", "m", 1), ("acme", "n", 2), ("acm", "en", 1), ("acmen", "", 1)],
    ids=str,
)
def test_moved_to_another_row(moved: tuple[str, str, int]) -> None:
    sealed = seal(KEK, "acme", "n", 1, Secret("s"))
    with pytest.raises(SealBroken):
        unseal(KEK, SealedSecret(*moved, sealed.sealed))


def test_every_single_bit_matters() -> None:
    sealed = seal(KEK, "acme", "n", 1, Secret("s")).sealed
    for position in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(SealBroken):
            unseal(KEK, SealedSecret("acme", "n", 1, bytes(changed)))


def test_every_truncation_and_extension() -> None:
    sealed = seal(KEK, "acme", "n", 1, Secret("secret")).sealed
    for form in (*(sealed[:end] for end in range(len(sealed))), sealed + b"\0"):
        with pytest.raises(SealBroken):
            unseal(KEK, SealedSecret("acme", "n", 1, form))


def test_the_payload_of_one_under_the_key_of_another() -> None:
    one, two = (seal(KEK, "acme", "n", 1, Secret(text)).sealed for text in ("a", "b"))
    for cut in (24, 72, 84):
        with pytest.raises(SealBroken):
            unseal(KEK, SealedSecret("acme", "n", 1, one[:cut] + two[cut:]))


def test_another_kek_is_named() -> None:
    sealed = seal(KEK, "acme", "n", 1, Secret("s"))
    other = KeyEncryptionKey(b"o" * 32)
    with pytest.raises(SealBroken, match=KEK.id.hex()):
        unseal(other, sealed)


def test_derived_keys_differ_by_purpose_and_from_the_key() -> None:
    assert len({KEK.derive("a"), KEK.derive("b"), b"k" * 32}) == 3
    assert KEK.derive("a") == KeyEncryptionKey(b"k" * 32).derive("a")


@settings(max_examples=20)
@given(st.binary(max_size=64).filter(lambda key: len(key) != 32))
def test_a_kek_of_another_length(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        KeyEncryptionKey(key)


class TestKeyFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "kek.key"
        KeyEncryptionKey.create(path)
        return path

    def test_is_ours_alone_whatever_the_umask(self, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            KeyEncryptionKey.create(tmp_path / "kek.key")
        finally:
            os.umask(old)
        assert (tmp_path / "kek.key").stat().st_mode & 0o777 == 0o600

    def test_loads_as_the_same_key(self, path: Path) -> None:
        sealed = seal(KeyEncryptionKey.load(path), "acme", "n", 1, Secret("s"))
        assert unseal(KeyEncryptionKey.load(path), sealed).reveal() == b"s"

    def test_is_never_replaced(self, path: Path) -> None:
        content = path.read_bytes()
        with pytest.raises(FileExistsError):
            KeyEncryptionKey.create(path)
        assert path.read_bytes() == content
        assert [entry.name for entry in path.parent.iterdir()] == ["kek.key"]

    def test_what_a_crash_left_does_not_stand_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / ".kek.key.new").write_bytes(b"half")
        KeyEncryptionKey.create(tmp_path / "kek.key")
        assert [entry.name for entry in tmp_path.iterdir()] == ["kek.key"]

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o777])
    def test_exposed(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        with pytest.raises(KeyFileRefused) as refusal:
            KeyEncryptionKey.load(path)
        assert f"chmod 600 {path}" in refusal.value.fix
        assert f"{mode:04o}" in refusal.value.problem

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(KeyFileRefused, match="does not exist"):
            KeyEncryptionKey.load(tmp_path / "kek.key")

    def test_symbolic_link_even_to_a_good_one(self, path: Path) -> None:
        link = path.with_name("link.key")
        link.symlink_to(path)
        with pytest.raises(KeyFileRefused, match="symbolic link"):
            KeyEncryptionKey.load(link)

    def test_folder(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir(mode=0o700)
        with pytest.raises(KeyFileRefused, match="not a regular file"):
            read_key_file(tmp_path / "folder")

    def test_pipe_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe", 0o600)
        with pytest.raises(KeyFileRefused, match="not a regular file"):
            read_key_file(tmp_path / "pipe")

    def test_of_another_owner(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        owner = path.stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        with pytest.raises(KeyFileRefused, match=f"belongs to uid {owner}"):
            read_key_file(path)

    def test_too_large(self, tmp_path: Path) -> None:
        create_key_file(tmp_path / "big", b"x" * 20_000)
        with pytest.raises(KeyFileRefused, match="too large"):
            read_key_file(tmp_path / "big")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"k" * 32,
            b"exeat-kek-v1:",
            b"exeat-kek-v1:" + b"00" * 31,
            b"exeat-kek-v1:" + b"00" * 33,
            b"exeat-kek-v1:" + b"0 " * 32,
            b"exeat-kek-v1:" + b"AA" * 32,
            b"exeat-kek-v2:" + b"00" * 32,
            b"exeat-kek-v1:" + b"00" * 32 + b"\n\n",
            b"00" * 32,
            b"\xff" * 64,
        ],
    )
    def test_content_that_is_no_key(self, tmp_path: Path, content: bytes) -> None:
        create_key_file(tmp_path / "kek.key", content)
        with pytest.raises(KeyFileRefused, match="not a key-encryption key") as refusal:
            KeyEncryptionKey.load(tmp_path / "kek.key")
        assert "00000000" not in str(refusal.value)
