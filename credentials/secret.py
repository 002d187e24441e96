"""A secret value that cannot reach a string by accident.

The only way to the bytes is `reveal()`, so a search for that word finds every place where a secret is used. Not
promised: the bytes are not wiped from memory; Python copies and moves objects as it likes.
"""

import hmac
import os
from hashlib import sha256
from typing import Final, Never, SupportsIndex, final

HIDDEN: Final = "Secret(hidden)"
MAX_SECRET_BYTES: Final = 65536
"""A service account's JSON key file is 2.4 kB, a PEM chain below 16 kB; four times that."""

_PROCESS_KEY: Final = os.urandom(32)
"""Keys the thumbprints of secrets that no instance vouches for: they compare equal within this process only."""


class SecretRefused(ValueError):
    """The value cannot be a secret (empty, too long, wrong type). The operator has to give another one."""


@final
class Secret:
    """Holds bytes that no `str`, `repr`, `format`, pickle, JSON or copy shows."""

    __slots__ = ("__thumbprint", "__thumbprint_key", "__value")

    def __init__(self, value: bytes | str, *, thumbprint_key: bytes | None = None) -> None:
        """The secret is held; `str` is taken as UTF-8.

        `thumbprint_key` makes thumbprints comparable over restarts of one instance and useless for guessing elsewhere.
        Raises `SecretRefused` without the value in the message or in a frame's locals.
        """
        problem = _problem_of(value)
        if problem:
            del value
            raise SecretRefused(problem)
        self.__value = value.encode() if isinstance(value, str) else bytes(value)
        self.__thumbprint_key = _PROCESS_KEY if thumbprint_key is None else thumbprint_key
        self.__thumbprint: str | None = None

    def reveal(self) -> bytes:
        """The bytes themselves. The caller must not keep, log or raise with them."""
        return self.__value

    def thumbprint(self) -> str:
        """Sixteen hex digits that tell two secrets apart and are safe to log: keyed, so that no guess can be tested."""
        if self.__thumbprint is None:
            digest = hmac.new(self.__thumbprint_key, b"exeat/thumbprint/v1\0" + self.__value, sha256)
            self.__thumbprint = digest.hexdigest()[:16]
        return self.__thumbprint

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        # A format specification could cut or pad; there is nothing to cut.
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        """Compared in constant time, so that a comparison does not tell where the first difference is."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value, other.__value)

    __hash__ = None  # type: ignore[assignment]  # a secret is no key of a dictionary: its hash would be stored

    def __bool__(self) -> bool:
        return True

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        raise TypeError("a Secret cannot be pickled")

    def __getstate__(self) -> Never:
        raise TypeError("a Secret has no state to give away")

    def __bytes__(self) -> Never:
        raise TypeError("a Secret is revealed by reveal() only")


def _problem_of(value: object) -> str | None:
    if not isinstance(value, bytes | str):
        return "a secret is bytes or text"
    if not value:
        return "a secret is not empty"
    # Surrogates cannot be encoded; found here so that the encoder's exception, which carries the text, is never raised.
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return "a secret in text form is valid Unicode"
    if len(value) > MAX_SECRET_BYTES or (isinstance(value, str) and len(value.encode()) > MAX_SECRET_BYTES):
        return f"a secret is at most {MAX_SECRET_BYTES} bytes"
    return None
