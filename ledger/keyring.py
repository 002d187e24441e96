"""The keys that a log certifies, each with the range of tree sizes it is valid for.

Validity is a range of sizes, not of time: a clock cannot be proven, a place in the tree can. A key found in the data is
never trusted by itself: genesis is signed by the pinned root key, later keys by the one before and by the root key.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from ledger.findings import Broken
from ledger.genesis import genesis_statement, key_statement, revoke_statement
from ledger.note import NoteInvalid, Verifier
from ledger.trust import Trust


@dataclass(frozen=True, slots=True)
class KeyRange:
    """One log key and the records it may sign: from seq `first` up to, not including, `until`."""

    verifier: Verifier
    first: int
    until: int | None
    revoked_from: int | None = None


class Keyring:
    """The log's keys as the records name them."""

    def __init__(self, trust: Trust) -> None:
        self.ranges: list[KeyRange] = []
        self._trust = trust

    @property
    def current(self) -> Verifier:
        """The key that signs the next group."""
        return self.ranges[-1].verifier

    def start(self, record: Mapping[str, object]) -> None:
        """The genesis record's key is certified by the pinned root; raises `Broken`."""
        trust = self._trust
        key = _vkey(cast("str", record["key"]), "record 0")
        text = genesis_statement(trust.origin, key, cast("str", record["blinding"]))
        if record["root"] != trust.root.vkey or not trust.root.verify(text, _signature(record["certificate"])):
            raise Broken("key_uncertified", "record 0", "the first log key is not certified by the pinned root key")
        if key.name != trust.origin:
            raise Broken("key_uncertified", "record 0", "the log's key bears another name than the log")
        self.ranges.append(KeyRange(key, 0, None))

    def add(self, seq: int, record: Mapping[str, object]) -> None:
        """A key.add record's key follows the current one; raises `Broken`."""
        where = f"record {seq}"
        key = _vkey(cast("str", record["key"]), where)
        text = key_statement(self._trust.origin, key, cast("int", record["from_size"]))
        if (
            record["from_size"] != seq + 1
            or key.name != self._trust.origin
            or not self.current.verify(text, _signature(record["by_key"]))
            or not self._trust.root.verify(text, _signature(record["by_root"]))
        ):
            raise Broken("key_uncertified", where, "the new key is not certified by the key before it and the root key")
        self.ranges[-1] = replace(self.ranges[-1], until=seq + 1)
        self.ranges.append(KeyRange(key, seq + 1, None))

    def revoke(self, seq: int, record: Mapping[str, object]) -> None:
        """A key.revoke record ends a key's range earlier; raises `Broken` when the root key did not sign it."""
        where = f"record {seq}"
        key_id, from_size = cast("str", record["key_id"]), cast("int", record["from_size"])
        text = revoke_statement(self._trust.origin, key_id, from_size)
        if not self._trust.root.verify(text, _signature(record["by_root"])):
            raise Broken("key_uncertified", where, "the revocation is not signed by the root key")
        for index, known in enumerate(self.ranges):
            if known.verifier.key_id.hex() == key_id:
                self.ranges[index] = replace(known, revoked_from=from_size)
                if known.until is None or known.until > from_size:
                    raise Broken("key_range", where, "a revoked key signed records from the size it is revoked at")

    def for_record(self, seq: int) -> Verifier | None:
        """The key in force for a record; None when the log has none."""
        for known in reversed(self.ranges):
            if known.first <= seq:
                return known.verifier
        return None

    def by_id(self, key_id: bytes) -> Verifier | None:
        """A key of the log, whatever its range."""
        return next((known.verifier for known in self.ranges if known.verifier.key_id == key_id), None)


def _vkey(text: str, where: str) -> Verifier:
    try:
        return Verifier.parse(text)
    except NoteInvalid as error:
        raise Broken("key_uncertified", where, str(error)) from None


def _signature(value: object) -> bytes:
    return base64.b64decode(cast("str", value))
