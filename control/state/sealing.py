"""Secrets: sealed in the database, unsealed in memory, named in records by version and thumbprint."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from control.state.clock import Clock, at, parse, text
from control.state.errors import StateRefused, StateUnavailable
from control.state.journal import Entry, Journal
from control.stores.sqlite import Database, StoreUnavailable
from credentials.actor import Actor
from credentials.envelope import KeyEncryptionKey, SealBroken, SealedSecret, seal, unseal
from credentials.names import is_name, is_tenant
from credentials.presentation import SecretNotPresentable
from credentials.secret import Secret
from ledger import Receipt
from rules.alerts.destination import AlertDestination
from rules.alerts.secrets import AlertSecretUnusable, check_secret
from rules.policy.compile import PolicySet

THUMBPRINTS: Final = "thumbprint"


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """What may be told about a secret."""

    tenant: str
    name: str
    version: int
    thumbprint: str
    set_at: str
    """RFC 3339, UTC."""
    seq: int
    """Of the record of this change; 0 when listed."""
    connections: tuple[str, ...]
    """The tenant's connections that present it, under the active policy; `alerts/` and a destination that needs it."""


class Secrets:
    """Keeps secrets. Reading is a dictionary look-up; the caller serialises changes."""

    def __init__(self, database: Database, journal: Journal, kek: KeyEncryptionKey, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._kek = kek
        self._thumbprint_key = kek.derive(THUMBPRINTS)
        self._clock = clock
        self.current: Mapping[tuple[str, str], tuple[Secret, int]] = MappingProxyType({})
        """Newest version by tenant and name; replaced whole."""
        self.broken: tuple[str, ...] = ()
        """Secrets that do not open, as `tenant/name`: calls that need them are denied until they are set anew."""

    def load(self) -> None:
        """Every secret that opens is usable."""
        current: dict[tuple[str, str], tuple[Secret, int]] = {}
        broken = []
        rows = self._database.query(
            "SELECT tenant, name, version, sealed FROM secrets WHERE sealed IS NOT NULL ORDER BY tenant, name, version"
        )
        for tenant, name, version, sealed in rows:
            try:
                secret = unseal(
                    self._kek, SealedSecret(tenant, name, version, bytes(sealed)), thumbprint_key=self._thumbprint_key
                )
            except SealBroken:
                # The newest version decides: an older one must not come back in its place.
                current.pop((tenant, name), None)
                broken.append(f"{tenant}/{name}")
                continue
            current[tenant, name] = (secret, version)
        self.current = MappingProxyType(current)
        self.broken = tuple(broken)

    def set(self, tenant: str, name: str, secret: Secret, actor: Actor, policy: PolicySet | None) -> SecretVersion:
        """The secret is sealed, recorded and used from the next call on; older versions are destroyed.

        Raises `StateRefused` for a name or value that cannot be used, `StateUnavailable` when it is not in force.
        """
        if not is_tenant(tenant) or not is_name(name):
            raise StateRefused("name_invalid", "a tenant or a secret has no valid name")
        connections = _connections(policy, tenant, name)
        for connection_name in connections:
            self._check_presentable(policy, tenant, connection_name, secret)
        destinations = _destinations(policy, tenant, name)
        try:
            check_secret(destinations, name, secret)
        except AlertSecretUnusable as error:
            raise StateRefused("secret_not_usable", f"an alert destination needs {error}") from None
        # Under our own key, so that the thumbprint in records means the same tomorrow.
        secret = Secret(secret.reveal(), thumbprint_key=self._thumbprint_key)
        now = text(at(self._clock()))
        try:
            with self._database.transaction() as connection:
                version = self._next_version(connection, tenant, name)
                sealed = seal(self._kek, tenant, name, version, secret)
                connection.execute(
                    "INSERT INTO secrets (tenant, name, version, sealed, thumb, at, actor) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (tenant, name, version, sealed.sealed, secret.thumbprint(), now, json.dumps(actor.as_record())),
                )
                content = self._content(name, version, secret.thumbprint(), actor)
                entry = self._journal.put(connection, "secret.set", tenant, content)
        except StoreUnavailable as error:
            raise StateUnavailable(f"the secret could not be stored: {error}") from error

        def destroy_older(connection: sqlite3.Connection, receipt: Receipt) -> None:
            connection.execute(
                "UPDATE secrets SET sealed = NULL WHERE tenant = ? AND name = ? AND version < ?",
                (tenant, name, version),
            )

        try:
            receipt = self._journal.record(entry, destroy_older)
        except StateUnavailable:
            # The version's number stays used: the record may be in the ledger after all.
            self._undo(
                "UPDATE secrets SET sealed = NULL WHERE tenant = ? AND name = ? AND version = ?",
                (tenant, name, version),
                entry,
            )
            raise
        self.current = MappingProxyType({**self.current, (tenant, name): (secret, version)})
        self.broken = tuple(one for one in self.broken if one != f"{tenant}/{name}")
        used = (*connections, *(f"alerts/{destination.name}" for destination in destinations))
        return SecretVersion(tenant, name, version, secret.thumbprint(), now, receipt.seq, used)

    def remove(self, tenant: str, name: str, actor: Actor, policy: PolicySet | None) -> SecretVersion:
        """The secret is destroyed, and that is recorded; calls that need it are denied from now on.

        Raises `StateRefused` when there is none. When it cannot be stored or recorded, it is out of use in this
        process all the same, and `StateUnavailable` says what is missing.
        """
        rows = self._database.query(
            "SELECT version, thumb FROM secrets WHERE tenant = ? AND name = ? AND sealed IS NOT NULL "
            "ORDER BY version DESC LIMIT 1",
            (tenant, name),
        )
        if not rows:
            raise StateRefused("secret_unknown", f"{tenant} has no secret {name}")
        version, thumb = rows[0]
        # Out of use first: taking away is never delayed by what may fail.
        self.current = MappingProxyType({key: value for key, value in self.current.items() if key != (tenant, name)})
        self.broken = tuple(one for one in self.broken if one != f"{tenant}/{name}")
        try:
            with self._database.transaction() as connection:
                connection.execute("UPDATE secrets SET sealed = NULL WHERE tenant = ? AND name = ?", (tenant, name))
                content = self._content(name, version, thumb, actor)
                entry = self._journal.put(connection, "secret.remove", tenant, content)
        except StoreUnavailable as error:
            raise StateUnavailable(f"the secret is out of use here but could not be removed: {error}") from error
        receipt = self._journal.record(entry)
        now = text(at(self._clock()))
        return SecretVersion(tenant, name, version, thumb, now, receipt.seq, _connections(policy, tenant, name))

    def list(self, policy: PolicySet | None) -> tuple[SecretVersion, ...]:
        """The newest version of every secret, by tenant and name. Values are not in it."""
        rows = self._database.query(
            "SELECT tenant, name, version, thumb, at FROM secrets WHERE sealed IS NOT NULL "
            "ORDER BY tenant, name, version"
        )
        newest = {(row[0], row[1]): row for row in rows}
        return tuple(
            SecretVersion(tenant, name, version, thumb, text(parse(when)), 0, _connections(policy, tenant, name))
            for tenant, name, version, thumb, when in newest.values()
        )

    @staticmethod
    def _next_version(connection: sqlite3.Connection, tenant: str, name: str) -> int:
        statement = "SELECT coalesce(max(version), 0) + 1 FROM secrets WHERE tenant = ? AND name = ?"
        version: int = connection.execute(statement, (tenant, name)).fetchone()[0]
        return version

    @staticmethod
    def _content(name: str, version: int, thumb: str, actor: Actor) -> dict[str, object]:
        return {"name": name, "version": version, "thumb": thumb, "actor": actor.as_record()}

    @staticmethod
    def _check_presentable(policy: PolicySet | None, tenant: str, connection_name: str, secret: Secret) -> None:
        binding = policy.tenants[tenant].connections[connection_name].binding if policy is not None else None
        if binding is None:
            return
        try:
            binding.presentation.check(secret)
        except SecretNotPresentable as error:
            raise StateRefused(
                "secret_not_presentable",
                f"the secret cannot be presented on connection {connection_name}: {error}",
                "Check for a line break at its end.",
            ) from None

    def _undo(self, statement: str, values: tuple[object, ...], entry: Entry) -> None:
        try:
            with self._database.transaction() as connection:
                connection.execute(statement, values)
                self._journal.withdraw(connection, entry)
        except StoreUnavailable as error:
            raise StateUnavailable(
                "the secret could not be recorded and is not in use; it is stored and will be after a restart, for it "
                f"could not be removed either: {error}"
            ) from error


def missing_secrets(policy: PolicySet | None, current: Mapping[tuple[str, str], object]) -> tuple[str, ...]:
    """`tenant/name` of every secret that a connection or an alert destination wants and nobody has set."""
    if policy is None:
        return ()
    wanted = {
        (tenant.tenant, connection.binding.secret_name)
        for tenant in policy.tenants.values()
        for connection in tenant.connections.values()
        if connection.binding is not None
    }
    wanted |= {
        (tenant.tenant, name)
        for tenant in policy.tenants.values()
        for destination in tenant.alerts.values()
        for name in destination.secrets
    }
    return tuple(f"{tenant}/{name}" for tenant, name in sorted(wanted - current.keys()))


def _connections(policy: PolicySet | None, tenant: str, name: str) -> tuple[str, ...]:
    of_tenant = None if policy is None else policy.tenants.get(tenant)
    if of_tenant is None:
        return ()
    return tuple(
        connection.name
        for connection in of_tenant.connections.values()
        if connection.binding is not None and connection.binding.secret_name == name
    )


def _destinations(policy: PolicySet | None, tenant: str, name: str) -> tuple[AlertDestination, ...]:
    of_tenant = None if policy is None else policy.tenants.get(tenant)
    found = () if of_tenant is None else of_tenant.alerts.values()
    return tuple(destination for destination in found if name in destination.secrets)
