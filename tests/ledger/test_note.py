"""C2SP signed notes, checkpoints and trust files: the published vector, and every way to be nearly one."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import Trust, TrustInvalid
from ledger.note import Checkpoint, NoteInvalid, Signer, Verifier, open_note

# From golang.org/x/mod/sumdb/note, the implementation that c2sp.org/signed-note describes.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT
    + "\n\u2014 PeterNeumann "
    + "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


@pytest.fixture
def signer() -> Signer:
    return Signer("exeat.test/log", Ed25519PrivateKey.generate())


def test_the_published_note_opens_with_the_published_key():
    text, by = open_note(NOTE.encode(), [Verifier.parse(PETER)])
    assert text == TEXT
    assert by[0].vkey == PETER


def test_unknown_signatures_are_ignored_and_known_ones_must_hold(signer):
    note = signer.sign_note("a\n")
    other = Signer("exeat.test/witness", Ed25519PrivateKey.generate())
    both = note + other.sign_note("a\n").split(b"\n\n")[1]
    assert open_note(both, [signer.verifier])[1] == (signer.verifier,)
    assert len(open_note(both, [signer.verifier, other.verifier])[1]) == 2
    wrong = note + other.sign_note("b\n").split(b"\n\n")[1]
    with pytest.raises(NoteInvalid, match="does not verify"):
        open_note(wrong, [signer.verifier, other.verifier])


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace(b"\n\n", b"\n"),
        lambda note: note[:-1],
        lambda note: note + b"\n",
        lambda note: note.replace(b"=\n", b"\n"),
        lambda note: note.replace("\u2014".encode(), b"-"),
        lambda note: note.replace(b"a\n", b"b\n", 1),
        lambda note: note.replace(b"a\n", b"a\r\n", 1),
        lambda note: b"\xff" + note,
        lambda note: note + note.split(b"\n\n")[1],
        lambda note: note.split(b"\n\n")[0] + b"\n\n",
        lambda note: b"x" * 70_000 + note,
    ],
)
def test_a_note_that_is_nearly_one_is_refused(signer, change):
    with pytest.raises(NoteInvalid):
        open_note(change(signer.sign_note("a\n")), [signer.verifier])


B43 = "A" * 43 + "="


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\n",
        f"o\n01\n{B43}\n",
        f"o\n-1\n{B43}\n",
        "o\n1\n" + "A" * 42 + "B=\n",
        "o\n1\nAAAA\n",
        f"o\n1\n{B43}\nextension\n",
    ],
)
def test_a_checkpoint_that_is_nearly_one_is_refused(text):
    with pytest.raises(NoteInvalid):
        Checkpoint.parse(text)


def test_a_checkpoint_survives_its_text():
    checkpoint = Checkpoint("exeat.test/log", 7, bytes(range(32)))
    assert Checkpoint.parse(checkpoint.text) == checkpoint


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a+b",
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER.replace("+AR", "+BR"),
        PETER + "=",
        PETER.replace("Peter", "Peter "),
    ],
)
def test_a_vkey_that_is_nearly_one_is_refused(vkey):
    with pytest.raises(NoteInvalid):
        Verifier.parse(vkey)


def test_a_private_key_shows_in_no_representation(signer):
    assert repr(signer) == "Signer(exeat.test/log)"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("format exeat-trust/v1", "format exeat-trust/v2"),
        ("rung 0", "rung 9"),
        ("rung 0", "rung 0\nrung 1"),
        ("rung 0", "rung 0\nwitness w"),
        ("rung 0", ""),
        ("genesis 00", "genesis zz"),
        ("origin exeat", "origin ledger-"),
    ],
)
def test_a_trust_file_that_is_nearly_one_is_refused(signer, old, new):
    trust = Trust("exeat.test/log", signer.verifier, bytes(32), 0)
    assert old in trust.text
    with pytest.raises(TrustInvalid):
        Trust.parse(trust.text.replace(old, new))


def test_the_fingerprint_covers_all_that_is_pinned(signer):
    first = Trust("exeat.test/log", signer.verifier, bytes(32), 0)
    others = [
        Trust("exeat.test/log2", signer.verifier, bytes(32), 0),
        Trust("exeat.test/log", signer.verifier, b"1" * 32, 0),
        Trust("exeat.test/log", signer.verifier, bytes(32), 1),
    ]
    assert len({trust.fingerprint for trust in [first, *others]}) == 4
