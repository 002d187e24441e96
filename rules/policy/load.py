"""A file or a folder of YAML becomes a `PolicySource`, or every error in it at once."""

import hashlib
import os
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from rules.catalogue.catalogue import Catalogue, catalogue_of
from rules.catalogue.document import ServiceDocument
from rules.policy.authorities import named_authorities
from rules.policy.case_checks import check_cases
from rules.policy.checks import check
from rules.policy.explain import explain
from rules.policy.invalid import ValueInvalid
from rules.policy.models import TenantDocument
from rules.policy.reading import MAX_FILE_BYTES, Location, Place, Reading, read
from rules.policy.source import PolicyError, PolicyFile, PolicyInvalid, PolicySource, PolicyWarning, Written
from rules.policy.unknown_tools import unknown_beside_denied
from rules.policy.warnings import warnings
from rules.prices.document import BookDocument
from rules.prices.library import Library, library_of

MAX_FILES: Final = 5_000
MAX_TOTAL_BYTES: Final = 256 * 1024 * 1024
MAX_ERRORS: Final = 1_000
"""All errors are told at once, up to what anyone would read."""
MAX_AUTHORITY_BYTES: Final = 256 * 1024
"""About a hundred certificates."""
_SUFFIXES: Final = (".yaml", ".yml")

type _Kept = dict[str, list[int]]
"""Account to the positions, as written, of the rules that were left in."""


def load_policy(path: Path) -> PolicySource:
    """The policy in a file, or in every `*.yaml` and `*.yml` directly in a folder, one tenant a file.

    Raises PolicyInvalid with every error found; the caller must keep the policy it has. Nothing else is raised for
    anything that a file can contain.
    """
    loading = _Loading(path if path.is_dir() else path.parent)
    for file in loading.listed(path):
        loading.take(file)
    loading.judge()
    return loading.result()


def parse_policy(texts: dict[str, bytes]) -> PolicySource:
    """As `load_policy`, for files that are in memory, by name. Files that they refer to count as missing."""
    loading = _Loading(None)
    for name, raw in sorted(texts.items()):
        loading.parse(name, raw)
    loading.judge()
    return loading.result()


@dataclass(slots=True)
class _Loading:
    folder: Path | None
    errors: list[PolicyError] = field(default_factory=list)
    warnings: list[PolicyWarning] = field(default_factory=list)
    documents: dict[str, TenantDocument] = field(default_factory=dict)
    tenants: dict[str, str] = field(default_factory=dict)
    """Tenant to the file that declares it, also when the rest of that file is invalid."""
    authorities: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    cases: dict[str, tuple[Written, ...]] = field(default_factory=dict)
    services: dict[str, ServiceDocument] = field(default_factory=dict)
    books: dict[str, BookDocument] = field(default_factory=dict)
    waiting: list[Reading] = field(default_factory=list)
    """Tenants' files, which are judged once the whole catalogue is known."""
    total: int = 0

    def listed(self, path: Path) -> list[Path]:
        """The policy files to read, by name."""
        try:
            if not path.is_dir():
                return [path]
            found = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and not p.name.startswith("."))
        except OSError as error:
            self._file_error(path.name, f"cannot be read: {error.strerror}", "check the path and its permissions")
            return []
        if not found:
            self._file_error(path.name or str(path), "no policy in this folder", "put a file ending in .yaml there")
        if len(found) > MAX_FILES:
            self._file_error(path.name, f"more than {MAX_FILES} files", "apply fewer tenants at once")
            return []
        return found

    def take(self, file: Path) -> None:
        """Reads one policy file."""
        raw = self._bytes(file, file.name, MAX_FILE_BYTES + 1)
        if raw is not None:
            self.parse(file.name, raw)

    def parse(self, name: str, raw: bytes) -> None:
        """Reads one file's bytes: a tenant's policy, a service for the catalogue, or a price book."""
        self.files[name] = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        reading, errors = read(raw, name)
        self.errors.extend(errors)
        if reading is None:
            return
        if "catalogue" in reading.data:
            self._service(reading)
        elif "prices" in reading.data:
            self._book(reading)
        else:
            self.waiting.append(reading)

    def judge(self) -> None:
        """Validates the tenants' files, now that the catalogue is whole."""
        try:
            catalogue = catalogue_of(self.services.values())
        except ValueInvalid:  # told where it was read
            catalogue = catalogue_of(())
        library = library_of(self.books.values())
        for reading in self.waiting:
            self._judge(reading, catalogue, library)

    def _service(self, reading: Reading) -> None:
        try:
            document = ServiceDocument.model_validate(reading.data)
        except ValidationError as error:
            self.errors.extend(explain(detail, reading) for detail in error.errors(include_url=False))
            return
        place = reading.value(("service",))
        if document.service in self.services:
            message = f"service: {document.service} has a file already"
            self.errors.append(reading.error(place, message, "one service has one file: merge them"))
            return
        try:
            catalogue_of((document,))
        except ValueInvalid as error:
            self.errors.append(reading.error(place, error.message, error.fix))
            return
        self.services[document.service] = document

    def _book(self, reading: Reading) -> None:
        try:
            document = BookDocument.model_validate(reading.data)
        except ValidationError as error:
            self.errors.extend(explain(detail, reading) for detail in error.errors(include_url=False))
            return
        place = reading.value(("book",))
        if document.book in self.books:
            message = f"book: {document.book} has a file already"
            self.errors.append(reading.error(place, message, "one book has one file: merge them"))
            return
        try:
            library_of((document,))
        except ValidationError:
            message = f"book: not in the currency of the book {document.book} that it adds to"
            self.errors.append(reading.error(place, message, "give it a name of its own"))
            return
        self.books[document.book] = document

    def _judge(self, reading: Reading, catalogue: Catalogue, library: Library) -> None:
        name = reading.file
        before = len(self.errors)
        document, kept = self._validate(reading)
        whole = len(self.errors) == before
        self._one_file_a_tenant(reading)
        if document is None:
            return
        # What was left out must not be missed a second time, by the tests that name it.
        tests = check_cases(document, catalogue) if whole else ()
        warned = chain(warnings(document), unknown_beside_denied(document, catalogue))
        for finding in chain(check(document, catalogue, library, _declared(reading.data)), warned, tests):
            location = _as_written(finding.location, kept)
            place = (reading.key if finding.at_key else reading.value)(location)
            said = (name, place.line, place.column, finding.message, finding.fix)
            if finding.fatal:
                self.errors.append(PolicyError(*said))
            else:
                self.warnings.append(PolicyWarning(*said, finding.name))
        self._authorities(document, reading)
        places = (reading.value(("tests", index)) for index in range(len(document.tests or ())))
        self.cases[document.tenant] = tuple(Written(name, place.line, place.column) for place in places)
        self.documents[document.tenant] = document

    def result(self) -> PolicySource:
        """The policy, once all files are taken; PolicyInvalid when any has an error."""
        if self.errors:
            found = sorted(set(self.errors))
            if len(found) > MAX_ERRORS:
                last = found[MAX_ERRORS - 1]
                more = f"and {len(found) - MAX_ERRORS + 1} errors more"
                found[MAX_ERRORS - 1 :] = [PolicyError(last.file, last.line, last.column, more, "correct these first")]
            raise PolicyInvalid(tuple(found))
        return PolicySource(
            documents=tuple(self.documents[tenant] for tenant in sorted(self.documents)),
            authorities=self.authorities,
            files=tuple(PolicyFile(name, digest) for name, digest in sorted(self.files.items())),
            warnings=tuple(sorted(self.warnings)),
            services=tuple(self.services[name] for name in sorted(self.services)),
            books=tuple(self.books[name] for name in sorted(self.books)),
            cases=self.cases,
        )

    def _validate(self, reading: Reading) -> tuple[TenantDocument | None, _Kept]:
        """The document. What is invalid in it is reported and left out, so that the rest is checked too."""
        try:
            return TenantDocument.model_validate(reading.data), {}
        except ValidationError as error:
            found = error.errors(include_url=False)
        self.errors.extend(explain(detail, reading) for detail in found)
        pruned, kept = _without(reading.data, [tuple(detail["loc"]) for detail in found])
        try:
            return TenantDocument.model_validate(pruned), kept
        except ValidationError:
            return None, {}

    def _one_file_a_tenant(self, reading: Reading) -> None:
        tenant = reading.data.get("tenant")
        if not isinstance(tenant, str):
            return
        first = self.tenants.setdefault(tenant, reading.file)
        if first != reading.file:
            place = reading.value(("tenant",))
            fix = "one tenant has one file: merge them, or rename one"
            self.errors.append(reading.error(place, f"tenant: the same tenant as in {first}", fix))

    def _authorities(self, document: TenantDocument, reading: Reading) -> None:
        for named in named_authorities(document):
            place = reading.value(named.location)
            try:
                pem = self._authority(named.file)
            except ValueInvalid as error:
                self.errors.append(reading.error(place, f"{named.key}: {error.message}", error.fix))
            else:
                self.authorities.setdefault(document.tenant, {})[named.what] = pem

    def _authority(self, name: str) -> str:
        if self.folder is None:
            raise ValueInvalid("the file is missing", "put the PEM file beside the policy")
        try:
            file = (self.folder / name).resolve()
            if not file.is_relative_to(self.folder.resolve()):
                raise ValueInvalid("the file lies outside the policy's folder", "copy it there")
            if not file.is_file():
                raise ValueInvalid("the file is missing", "put the PEM file beside the policy")
            with file.open("rb") as stream:
                raw = stream.read(MAX_AUTHORITY_BYTES + 1)
        except OSError as error:
            raise ValueInvalid(f"cannot be read: {error.strerror}", "check the file's permissions") from None
        if len(raw) > MAX_AUTHORITY_BYTES:
            raise ValueInvalid(f"larger than {MAX_AUTHORITY_BYTES} bytes", "keep the authorities that are needed")
        self.files[name] = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        return parse_authority(raw)

    def _bytes(self, file: Path, name: str, limit: int) -> bytes | None:
        try:
            if not file.exists():
                self._file_error(name, "there is no such file or folder", "check the path, or start with `exeat init`")
                return None
            if not file.is_file():
                # A FIFO or a device would hang the reader or never end.
                self._file_error(name, "not a regular file", "replace it by a plain file")
                return None
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as stream:
                raw = stream.read(limit)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            self._file_error(name, f"cannot be read: {reason}", "check the file's permissions")
            return None
        self.total += len(raw)
        if self.total > MAX_TOTAL_BYTES:
            self._file_error(name, f"more than {MAX_TOTAL_BYTES} bytes in all", "apply fewer tenants at once")
            return None
        return raw

    def _file_error(self, name: str, message: str, fix: str) -> None:
        start = Place(1, 1)
        self.errors.append(PolicyError(name, start.line, start.column, message, fix))


def parse_authority(raw: bytes) -> str:
    """The certificates in a PEM file and nothing else of it, in their one canonical form; ValueInvalid without any."""
    if b"PRIVATE KEY" in raw:
        raise ValueInvalid("the file holds a private key", "keep the certificate only, and treat the key as disclosed")
    try:
        certificates = x509.load_pem_x509_certificates(raw)
    except ValueError:
        raise ValueInvalid(
            "no PEM certificate in the file", "export the authority as PEM (BEGIN CERTIFICATE)"
        ) from None
    return "".join(c.public_bytes(Encoding.PEM).decode("ascii") for c in certificates)


def _declared(data: dict[str, object]) -> tuple[str, ...] | None:
    """The connections' names as written; None when they may stand under a key that was misspelt."""
    connections = data.get("connections")
    if isinstance(connections, dict):
        return tuple(connections)
    return () if "connections" in data or data.keys() <= TenantDocument.model_fields.keys() else None


def _without(data: dict[str, object], locations: list[Location]) -> tuple[dict[str, object], _Kept]:
    """The data without the connections, rules, accounts and sections that the locations lie in."""
    rules: dict[str, set[int]] = {}
    entries: set[tuple[str, str]] = set()
    sections: set[str] = set()
    for location in locations:
        match location:
            case ("accounts", str(account), "rules", int(index), *_):
                rules.setdefault(account, set()).add(index)
            case ("connections" | "accounts" as section, str(name), *_):
                entries.add((section, name))
            case (str(section), *_):
                sections.add(section)
            case _:
                pass
    pruned: dict[str, object] = {}
    kept: _Kept = {}
    for section, value in data.items():
        if section in sections:
            continue
        if section not in ("connections", "accounts") or not isinstance(value, dict):
            pruned[section] = value
            continue
        left = {name: entry for name, entry in value.items() if (section, name) not in entries}
        if section == "accounts":
            for account in rules.keys() & left.keys():
                left[account], kept[account] = _without_rules(left[account], rules[account])
        pruned[section] = left
    return pruned, kept


def _without_rules(entry: object, indices: set[int]) -> tuple[object, list[int]]:
    written = entry.get("rules") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(written, list):
        return entry, []
    kept = [index for index in range(len(written)) if index not in indices]
    return {**entry, "rules": [written[index] for index in kept]}, kept


def _as_written(location: Location, kept: _Kept) -> Location:
    match location:
        case ("accounts", str(account), "rules", int(index), *rest) if account in kept:
            return ("accounts", account, "rules", kept[account][index], *rest)
        case _:
            return location
