"""One kept call: sealed bytes bound to everything that stands beside them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from control.inputs.day_keys import new_nonce
from control.stores.sqlite import Schema
from proxy.deciding import Decided
from rules.swift import swift

MAGIC: Final = b"EXI1"
_NONCE_BYTES: Final = 12
_DAY: Final = 86_400_000_000
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


@swift
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
            bound = _bound(self.tenant, self.account, self.call, self.at, self.policy, self.code, self.rule)
            return cipher.decrypt(self.sealed[len(MAGIC) : start], self.sealed[start:], bound)
        except InvalidTag:
            return None

    @classmethod
    def sealing(cls, decided: Decided, cipher: AESGCM) -> "Row":
        """The call's row, ready to be stored."""
        at, nonce = micros(decided.at), new_nonce()
        beside = (decided.policy, decided.code, decided.rule)
        bound = _bound(decided.tenant, decided.account, decided.call, at, *beside)
        sealed = MAGIC + nonce + cipher.encrypt(nonce, decided.inputs, bound)
        return cls(decided.call, at, decided.tenant, decided.account, *beside, sealed)


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


def _bound(
    tenant: str, account: str, call: str, at: int, policy: str | None, code: str | None, rule: str | None
) -> bytes:
    # Each part with its length before it, so that no two different rows give the same bytes.
    bound = bytearray()
    for part in ("exeat/kept-inputs/v1", tenant, account, call, str(at), policy, code, rule):
        written = b"" if part is None else part.encode()
        bound += len(written).to_bytes(4, "big")
        bound += written
    return bytes(bound)


def micros(at: datetime) -> int:
    """Microseconds since 1970, exact."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def day_of(at: int) -> str:
    """The UTC day of a moment in microseconds: `2026-11-25`."""
    return _day(at // _DAY)


@lru_cache(1024)
def _day(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).date().isoformat()


def moment_of(at: int) -> datetime:
    """The moment, aware UTC."""
    return _EPOCH + timedelta(microseconds=at)
