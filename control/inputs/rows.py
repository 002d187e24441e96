"""One kept call: sealed bytes bound to everything that stands beside them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from control.inputs.day_keys import new_nonce
from control.stores.sqlite import Schema
from proxy.deciding import Decided

MAGIC: Final = b"EXI1"
_NONCE_BYTES: Final = 12
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

ROWS: Final = Schema(
    0x45584549,  # "EXEI"
    (
        (
            """CREATE TABLE kept (
                id INTEGER PRIMARY KEY AUTOINCREMENT, call TEXT NOT NULL UNIQUE, at INTEGER NOT NULL,
                tenant TEXT NOT NULL, account TEXT NOT NULL, day TEXT NOT NULL, policy TEXT, code TEXT, rule TEXT,
                sealed BLOB)""",
            "CREATE INDEX kept_by_day ON kept (tenant, day)",
            "CREATE INDEX kept_by_time ON kept (at)",
        ),
    ),
    synchronous="NORMAL",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One kept call, as it is stored."""

    call: str
    at: int
    """Microseconds since 1970."""
    tenant: str
    account: str
    policy: str | None
    code: str | None
    rule: str | None
    sealed: bytes | None
    """None: erased."""

    @property
    def day(self) -> str:
        """Whose key it is sealed with."""
        return day_of(self.at)

    def open(self, cipher: AESGCM) -> bytes | None:
        """The inputs; None where the row was erased, moved or changed."""
        if self.sealed is None or not self.sealed.startswith(MAGIC):
            return None
        start = len(MAGIC) + _NONCE_BYTES
        try:
            return cipher.decrypt(self.sealed[len(MAGIC) : start], self.sealed[start:], self._associated())
        except InvalidTag:
            return None

    @classmethod
    def sealing(cls, decided: Decided, cipher: AESGCM) -> "Row":
        """The call's row, ready to be stored."""
        bare = cls(
            decided.call, micros(decided.at), decided.tenant, decided.account, decided.policy, decided.code,
            decided.rule, None,
        )  # fmt: skip
        nonce = new_nonce()
        sealed = MAGIC + nonce + cipher.encrypt(nonce, decided.inputs, bare._associated())
        return cls(bare.call, bare.at, bare.tenant, bare.account, bare.policy, bare.code, bare.rule, sealed)

    def _associated(self) -> bytes:
        # Each part with its length before it, so that no two different rows give the same bytes.
        beside = (self.tenant, self.account, self.call, str(self.at), self.policy, self.code, self.rule)
        parts = (b"exeat/kept-inputs/v1", *(b"" if part is None else part.encode() for part in beside))
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@dataclass(frozen=True, slots=True)
class Opened:
    """One kept call, as it may be read."""

    number: int
    """In the order in which they were kept."""
    row: Row
    inputs: bytes | None
    """None: erased, or it does not open; which of the two, `row.sealed` says."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which kept calls are meant: those for which everything holds that is given."""

    call: str | None = None
    tenant: str | None = None
    account: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    def where(self) -> tuple[str, tuple[object, ...]]:
        """As a condition of SQL and its values."""
        given: list[tuple[str, object]] = []
        if self.since is not None:
            given.append(("at >= ?", micros(self.since)))
        if self.before is not None:
            given.append(("at < ?", micros(self.before)))
        named = (("call", self.call), ("tenant", self.tenant), ("account", self.account))
        given += [(f"{name} = ?", value) for name, value in named if value is not None]
        return " AND ".join(condition for condition, _ in given) or "1", tuple(value for _, value in given)


def micros(at: datetime) -> int:
    """Microseconds since 1970, exact."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def day_of(at: int) -> str:
    """The UTC day of a moment in microseconds: `2026-11-25`."""
    return (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%d")


def moment_of(at: int) -> datetime:
    """The moment, aware UTC."""
    return _EPOCH + timedelta(microseconds=at)
