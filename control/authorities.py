"""The files of the authorities in a state's keys, and how one follows another without a moment in which none signs.

    ca.pem            key and certificate of the one that signs
    ca-cert.pem       its certificate, for people and doctor; made anew when it differs
    ca-next.pem       key and certificate of the next one, from `begin` to `switch`
    ca-old-cert.pem   the certificate of the one before, from `switch` to `finish`

Each step changes one file that matters, and changes it whole: `begin` links a new file, `switch` renames ca-next.pem
over ca.pem, `finish` removes one. What a crash leaves around that is put right when the files are opened next.
"""

import os
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from proxy.engine.authority import Authority, AuthorityInvalid, Permitted

_ACTIVE: Final = "ca.pem"
_CERTIFICATE: Final = "ca-cert.pem"
_NEXT: Final = "ca-next.pem"
_OLD: Final = "ca-old-cert.pem"


class RotationRefused(Exception):
    """The step makes no sense now; `cure` says which one does."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


class Authorities:
    """The authorities of one state. Only the holder of the state's lock may open them. Safe from any thread."""

    def __init__(self, keys: Path, active: Authority) -> None:
        self._keys = keys
        self._changes = threading.RLock()
        self.active = active
        """Signs."""
        self.next: Authority | None = None
        self.previous: x509.Certificate | None = None
        self.renewed = ""
        """What had to be done when the files were opened, for the log and the ledger; empty for nothing."""

    @staticmethod
    def exist(keys: Path) -> bool:
        """True when there is an authority already."""
        return (keys / _ACTIVE).exists() or (keys / _CERTIFICATE).exists()

    @classmethod
    def create(cls, keys: Path, permitted: Permitted | None) -> "Authorities":
        """The first authority of a state. Raises `RotationRefused` and `TooManyNames`."""
        if cls.exist(keys):
            raise RotationRefused("there is an authority already", "Replace it with overlap: exeat ca rotate")
        Authority.create(permitted=permitted).save_new(keys / _ACTIVE)
        return cls.open(keys)

    @classmethod
    def open(cls, keys: Path) -> "Authorities":
        """The authorities of a folder, the first one made if there is none, interrupted steps put right.

        An authority that has expired is replaced, by the next one where there is one: agents have to be given the new
        certificate, and `renewed` says so. Raises `AuthorityInvalid`.
        """
        active = Authority.load_or_create(keys / _ACTIVE, keys / _CERTIFICATE)
        found = cls(keys, active)
        if (keys / _NEXT).exists():
            found.next = Authority.load(keys / _NEXT)
            if found.next.expires_at <= datetime.now(UTC):
                found._drop(_NEXT)
                found.next = None
        found._find_previous()
        if active.expires_at <= datetime.now(UTC):
            ended = f"{active.expires_at:%Y-%m-%d}"
            if found.next is None:
                found.begin(active.permitted)
            found.switch()
            found.finish()  # Nobody accepts what it signed.
            found.renewed = f"the authority had expired on {ended} and was replaced; restart agents and their relays"
        found._publish()
        return found

    @property
    def bundle_pem(self) -> str:
        """Certificates of all authorities that agents have to trust, the signing one first. Holds no key."""
        return "".join(_pem(certificate) for certificate in self.trusted)

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """The signing one, the next one, the one before: as far as there are any."""
        with self._changes:
            following = () if self.next is None else (self.next.certificate,)
            before = () if self.previous is None else (self.previous,)
            return (self.active.certificate, *following, *before)

    def begin(self, permitted: Permitted | None) -> Authority:
        """There is a next authority. Raises `RotationRefused` and `TooManyNames`."""
        with self._changes:
            if self.next is not None:
                raise RotationRefused(
                    f"a rotation has begun on {self.next.made_at:%Y-%m-%d}",
                    "Go on: exeat ca rotate --switch; or drop it: exeat ca rotate --cancel",
                )
            made = Authority.create(permitted=permitted)
            made.save_new(self._keys / _NEXT)
            self.next = made
            return made

    def switch(self) -> Authority:
        """The next authority signs, the key of the one before is gone. Raises `RotationRefused`."""
        with self._changes:
            following = self._following()
            before = self.active
            _replace(self._keys / _OLD, _pem(before.certificate))
            (self._keys / _NEXT).replace(self._keys / _ACTIVE)
            _sync(self._keys)
            self.previous, self.active, self.next = before.certificate, following, None
            self._publish()
            return following

    def cancel(self) -> None:
        """There is no next authority any more. Raises `RotationRefused`."""
        with self._changes:
            self._following()
            self._drop(_NEXT)
            self.next = None

    def finish(self) -> None:
        """The authority before is trusted no more by what is handed out from now on. Raises `RotationRefused`."""
        with self._changes:
            if self.previous is None:
                raise RotationRefused("there is no previous authority", "Nothing is left to do: exeat ca show")
            self._drop(_OLD)
            self.previous = None

    def _following(self) -> Authority:
        if self.next is None:
            raise RotationRefused("no rotation has begun", "Begin: exeat ca rotate")
        return self.next

    def _find_previous(self) -> None:
        path = self._keys / _OLD
        if not path.exists():
            return
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            raise AuthorityInvalid(f"{path} cannot be read; remove it, it holds no key") from error
        # The same as the active one: a switch was interrupted before it took place.
        if certificate == self.active.certificate or certificate.not_valid_after_utc <= datetime.now(UTC):
            self._drop(_OLD)
        else:
            self.previous = certificate

    def _publish(self) -> None:
        path = self._keys / _CERTIFICATE
        text = _pem(self.active.certificate)
        if not path.exists() or path.read_text(encoding="ascii") != text:
            _replace(path, text)

    def _drop(self, name: str) -> None:
        (self._keys / name).unlink(missing_ok=True)
        _sync(self._keys)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _replace(path: Path, text: str) -> None:
    """The file holds the text, durably, or what it held before."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="ascii") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    Path(name).replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
