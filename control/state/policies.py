"""Policies: applied whole, or not at all."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from control.state.clock import Clock, at, text
from control.state.errors import StateRefused, StateUnavailable
from control.state.journal import Entry, Journal
from control.stores.sqlite import Database, StoreUnavailable
from credentials.actor import SYSTEM, Actor
from ledger import Receipt
from proxy.trial import run_cases
from rules.policy.compile import PolicySet, canonical_json, compile_policy, read_bundle
from rules.policy.load import MAX_ERRORS, load_policy
from rules.policy.source import PolicyInvalid, PolicySource, PolicyWarning

_DECLARED: Final = ("commit", "author", "approver", "reason")
MAX_DECLARED_CHARS: Final = 128
MAX_REASON_CHARS: Final = 500
"""As of a revocation."""
_NUMBER: Final = re.compile(r"#?[1-9][0-9]{0,6}")
_DIGEST: Final = re.compile(r"(?:sha256:)?[0-9a-f]{8,64}")
MAX_FILES_RECORDED: Final = 256
MAX_FILES_BYTES: Final = 40_000
"""A record has at most 60 KiB; the rest of an activation is far below 20."""

type NewTenants = Callable[[sqlite3.Connection, tuple[str, ...]], None]
"""What has to exist for a tenant before its first call; called in the transaction of the activation."""


@dataclass(frozen=True, slots=True)
class Active:
    """The policy in force and the record that says so, replaced as one."""

    policy: PolicySet | None
    seq: int
    """Of its policy.activate record; 0 when there is none."""
    digest: str | None
    """Also when the policy itself cannot be read by this version."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A policy is in force, stored and recorded."""

    digest: str
    previous: str | None
    seq: int
    policy: PolicySet
    replaced: PolicySet | None
    """What it took the place of; None: every call was denied."""
    warnings: tuple[PolicyWarning, ...]
    tests: int
    """How many tests it has, and has passed."""


class Activation(NamedTuple):
    """One time that a policy became the active one."""

    number: int
    """In the order of activations."""
    digest: str
    previous: str | None
    at: str
    actor: dict[str, str]
    seq: int
    """Of the record of it; 0 where it is not known."""
    declared: dict[str, str]


class Stored(NamedTuple):
    """A policy that was activated."""

    digest: str
    seq: int
    """Of the record of that; 0 where it is not known."""
    since: str
    bundle: str


class Policies:
    """Stores policies and says which is active. The caller serialises changes."""

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self.active = Active(None, 0, None)
        self.fault: str | None = None
        """Why the active policy cannot be used; everything is denied then."""

    def load(self) -> None:
        """The policy that was activated last is active again."""
        rows = self._database.query(
            "SELECT digest, seq, bundle FROM activations JOIN policies USING (digest) ORDER BY id DESC LIMIT 1"
        )
        if not rows:
            return
        digest, seq, bundle = rows[0]
        policy: PolicySet | None = None
        try:
            policy = PolicySet.from_bundle(bytes(bundle))
        except PolicyInvalid as error:
            self.fault = f"the active policy cannot be used by this version ({error}); apply one"
        if policy is not None and policy.digest != digest:
            policy, self.fault = None, f"the stored policy {digest} was changed; apply it again"
        self.active = Active(policy, seq or 0, digest)

    def apply(
        self, source: Path | PolicySource, actor: Actor, declared: dict[str, str], new_tenants: NewTenants
    ) -> Applied:
        """The policy is stored, recorded and active.

        Raises `PolicyInvalid` (recorded) or `StateUnavailable`; the last good one is active then.
        """
        _check_declared(declared)
        source = self._read(source, actor, declared)
        policy = compile_policy(source)
        tests = self._try(source, policy, actor, declared)
        files = [{"name": file.name, "digest": file.digest} for file in source.files]
        return self._activate(policy, files, source.warnings, tests, actor, declared, new_tenants)

    def history(self, limit: int) -> tuple[Activation, ...]:
        """The newest activations, the newest first."""
        rows = self._database.query(
            "SELECT id, digest, previous, at, actor, seq, declared FROM activations ORDER BY id DESC LIMIT ?", (limit,)
        )
        return tuple(
            Activation(number, digest, previous, at, json.loads(actor), seq or 0, json.loads(declared))
            for number, digest, previous, at, actor, seq, declared in rows
        )

    def roll_back(self, to: str | None, actor: Actor, declared: dict[str, str], new_tenants: NewTenants) -> Applied:
        """A policy that was active before is stored, recorded and active again, by an activation of its own.

        `to` is the number of an activation or the beginning of a digest; None: whichever was active before this one.
        Raises `StateRefused` when there is none such, `PolicyInvalid` (recorded) when this version cannot read it or
        it fails its own tests, or `StateUnavailable`; the active one stays so then.
        """
        _check_declared(declared)
        digest, bundle, files = self._earlier(to)
        try:
            source = read_bundle(bundle)
            policy = PolicySet.from_bundle(bundle)
        except PolicyInvalid as invalid:
            self._reject(invalid, actor, declared)
            raise
        if policy.digest != digest:
            raise StateRefused("policy_changed", f"the stored policy {digest} was changed", "apply it from its files")
        tests = self._try(source, policy, actor, declared)
        return self._activate(policy, files, (), tests, actor, declared, new_tenants)

    def _earlier(self, to: str | None) -> tuple[str, bytes, list[dict[str, str]]]:
        """Digest, bundle and files of the activation that is meant."""
        select = "SELECT digest, bundle, files FROM activations JOIN policies USING (digest) WHERE "
        if to is None:
            rows = self._database.query(select + "digest IS NOT ? ORDER BY id DESC LIMIT 1", (self.active.digest,))
        elif _NUMBER.fullmatch(to):
            rows = self._database.query(select + "id = ?", (int(to.removeprefix("#")),))
        elif _DIGEST.fullmatch(to):
            begin = f"sha256:{to.removeprefix('sha256:')}"
            rows = self._database.query(select + "substr(digest, 1, ?) = ? ORDER BY id DESC", (len(begin), begin))
            if len({row[0] for row in rows}) > 1:
                raise StateRefused("policy_unclear", f"several policies begin with {begin}", "write more of the digest")
        else:
            raise StateRefused(
                "policy_unknown", "neither a digest nor an activation's number", "see: exeat policy history"
            )
        if not rows:
            what = "no other policy was active before" if to is None else f"no policy was activated as {to}"
            raise StateRefused("policy_unknown", what, "see: exeat policy history")
        digest, bundle, files = rows[0]
        if digest == self.active.digest and self.active.policy is not None:
            raise StateRefused("policy_active", f"{digest[:19]} is the active policy", "see: exeat policy history")
        return digest, bytes(bundle), json.loads(files)

    def _activate(
        self,
        policy: PolicySet,
        files: list[dict[str, str]],
        warnings: tuple[PolicyWarning, ...],
        tests: int,
        actor: Actor,
        declared: dict[str, str],
        new_tenants: NewTenants,
    ) -> Applied:
        previous = self.active.digest
        content: dict[str, object] = {
            "policy": policy.digest,
            "previous": previous,
            "actor": actor.as_record(),
            "files": recorded_files(files),
            **declared,
        }
        now = text(at(self._clock()))
        try:
            with self._database.transaction() as connection:
                connection.execute(
                    "INSERT INTO policies (digest, bundle, stored_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (policy.digest, policy.bundle, now),
                )
                activation = connection.execute(
                    "INSERT INTO activations (digest, previous, at, actor, files, declared) VALUES (?, ?, ?, ?, ?, ?)",
                    (policy.digest, previous, now, *map(json.dumps, (actor.as_record(), files, declared))),
                ).lastrowid
                new_tenants(connection, tuple(policy.tenants))
                entry = self._journal.put(connection, "policy.activate", "-", content)
        except StoreUnavailable as error:
            raise StateUnavailable(f"the policy could not be stored, the last one stays active: {error}") from error

        def note_seq(connection: sqlite3.Connection, receipt: Receipt) -> None:
            connection.execute("UPDATE activations SET seq = ? WHERE id = ?", (receipt.seq, activation))

        try:
            receipt = self._journal.record(entry, note_seq)
        except StateUnavailable as error:
            self._undo(activation, entry, error)
            raise StateUnavailable(f"{error.message}; the last policy stays active") from error
        self.fault = None
        replaced, self.active = self.active.policy, Active(policy, receipt.seq, policy.digest)
        return Applied(policy.digest, previous, receipt.seq, policy, replaced, warnings, tests)

    def in_force(self, moment: datetime | None) -> Stored:
        """The policy that was active at a moment, now when None. Raises `StateRefused` when none was."""
        before = text(at(self._clock()) if moment is None else moment.astimezone(UTC))
        rows = self._database.query(
            "SELECT digest, seq, at, bundle FROM activations JOIN policies USING (digest)"
            " WHERE at <= ? ORDER BY id DESC LIMIT 1",
            (before,),
        )
        if not rows:
            when = "is active" if moment is None else "was active then"
            raise StateRefused("no_policy", f"no policy {when}", "Apply one: exeat policy apply PATH")
        return Stored(rows[0][0], rows[0][1] or 0, rows[0][2], bytes(rows[0][3]).decode("utf-8"))

    def note_seq(self, digest: str, seq: int) -> None:
        """The record that says the active policy is active. Only while opening."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE activations SET seq = ? WHERE id = (SELECT max(id) FROM activations WHERE digest = ?)",
                (seq, digest),
            )
        if self.active.digest == digest:
            self.active = replace(self.active, seq=seq)

    def adopt(self, digest: str, seq: int) -> bool:
        """The stored policy that the ledger says is active is; False when it is not stored. Only while opening."""
        if not self._database.query("SELECT 1 FROM policies WHERE digest = ?", (digest,)):
            return False
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO activations (digest, previous, at, actor, files, seq) VALUES (?, ?, ?, ?, '[]', ?)",
                (digest, self.active.digest, text(at(self._clock())), json.dumps(SYSTEM.as_record()), seq),
            )
        self.load()
        return True

    def _read(self, source: Path | PolicySource, actor: Actor, declared: dict[str, str]) -> PolicySource:
        if isinstance(source, PolicySource):
            return source
        try:
            return load_policy(source)
        except PolicyInvalid as invalid:
            self._reject(invalid, actor, declared)
            raise

    def _try(self, source: PolicySource, policy: PolicySet, actor: Actor, declared: dict[str, str]) -> int:
        """The policy passes its own tests, so many. Raises `PolicyInvalid` (recorded) with those that it fails."""
        report = run_cases(source, policy)
        if report.failed:
            invalid = PolicyInvalid(tuple(outcome.error() for outcome in report.failed[:MAX_ERRORS]))
            self._reject(invalid, actor, declared)
            raise invalid
        return report.passed

    def _reject(self, invalid: PolicyInvalid, actor: Actor, declared: dict[str, str]) -> None:
        content: dict[str, object] = {"actor": actor.as_record(), "errors": len(invalid.errors)}
        if "commit" in declared:
            content["commit"] = declared["commit"]
        self._journal.submit("policy.reject", "-", content)

    def _undo(self, activation: int | None, entry: Entry, cause: StateUnavailable) -> None:
        try:
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM activations WHERE id = ?", (activation,))
                self._journal.withdraw(connection, entry)
        except StoreUnavailable as error:
            raise StateUnavailable(
                f"{cause.message}; the last policy stays active, but the new one is stored and will be active after a "
                f"restart, for it could not be removed either: {error}"
            ) from cause


def recorded_files(files: list[dict[str, str]]) -> list[dict[str, str]]:
    """The files as a record names them: each, or for very many one entry with the digest of their whole list.

    The digest is SHA-256 over the list as canonical JSON (RFC 8785); the list itself is kept in the database.
    """
    if len(files) <= MAX_FILES_RECORDED and len(canonical_json(files)) <= MAX_FILES_BYTES:
        return files
    digest = hashlib.sha256(canonical_json(files)).hexdigest()
    return [{"name": f"{len(files)} files", "digest": f"sha256:{digest}"}]


def _check_declared(declared: dict[str, str]) -> None:
    for name, value in declared.items():
        most = MAX_REASON_CHARS if name == "reason" else MAX_DECLARED_CHARS
        if not 1 <= len(value) <= most or not value.isprintable():
            raise StateRefused("declared_invalid", f"{name} is one printable line of 1 to {most} characters")


def declared_of(given: Mapping[str, str | None]) -> dict[str, str]:
    """What was declared, in the order of the record."""
    if unknown := given.keys() - set(_DECLARED):
        raise TypeError(f"a policy's origin has no {', '.join(sorted(unknown))}")
    return {name: value for name in _DECLARED if (value := given.get(name)) is not None}
