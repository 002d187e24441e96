"""The bundle: a whole policy as canonical JSON (RFC 8785), as it is stored, sent and digested."""

import json
from itertools import chain
from typing import Final

from pydantic import ValidationError

from rules.catalogue.catalogue import Catalogue, catalogue_of
from rules.catalogue.document import ServiceDocument
from rules.policy.authorities import named_authorities
from rules.policy.case_checks import check_cases
from rules.policy.checks import check
from rules.policy.invalid import ValueInvalid
from rules.policy.models import TenantDocument
from rules.policy.source import PolicyError, PolicyInvalid, PolicySource, Written
from rules.prices.document import BookDocument
from rules.prices.library import Library, library_of

BUNDLE_VERSION: Final = 1
_IN_BUNDLE: Final = Written("bundle", 1, 1)
"""A bundle is one line."""


def canonical_json(data: object) -> bytes:
    """RFC 8785 for what a policy contains: text, whole numbers, booleans; keys are ASCII, so code points order them."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def read_bundle(bundle: bytes) -> PolicySource:
    """What a bundle says, with its tests; no file of it is known. Raises PolicyInvalid as `PolicySet.from_bundle`."""
    try:
        data = json.loads(bundle.decode("utf-8"), parse_float=_refuse, parse_constant=_refuse)
        canonical = canonical_json(data) == bundle
    except (ValueError, RecursionError) as error:
        raise _bundle_invalid("not a bundle", "apply the policy again") from error
    match data:
        case {"bundle": version, "tenants": list(texts), "authorities": dict(authorities), **rest}:
            services, books = rest.pop("services", []), rest.pop("prices", [])
            if not isinstance(services, list) or not isinstance(books, list):
                raise _bundle_invalid("not a canonical bundle of this version", "apply the policy again")
            if version != BUNDLE_VERSION or rest or not canonical:
                raise _bundle_invalid("not a canonical bundle of this version", "apply the policy again")
        case _:
            raise _bundle_invalid("not a bundle", "apply the policy again")
    added, catalogue = _catalogue(services)
    library = _library(books)
    documents: list[TenantDocument] = []
    for text in texts:
        try:
            document = TenantDocument.model_validate(text)
        except ValidationError as error:
            raise _bundle_invalid("a tenant's policy is not valid in this version", "apply it again") from error
        findings = chain(check(document, catalogue, library), check_cases(document, catalogue))
        fatal = next((finding for finding in findings if finding.fatal), None)
        if fatal is not None:
            raise _bundle_invalid(f"{document.tenant}: {fatal.message}", fatal.fix)
        documents.append(document)
    if [d.tenant for d in documents] != sorted({d.tenant for d in documents}):
        raise _bundle_invalid("tenants are not in order, or stand twice", "apply the policy again")
    _check_authorities(documents, authorities)
    cases = {d.tenant: (_IN_BUNDLE,) * len(d.tests or ()) for d in documents}
    return PolicySource(tuple(documents), authorities, (), (), added, library.documents, cases)


def _catalogue(texts: list[object]) -> tuple[tuple[ServiceDocument, ...], Catalogue]:
    try:
        catalogue = catalogue_of(ServiceDocument.model_validate(text) for text in texts)
    except (ValidationError, ValueInvalid) as error:
        raise _bundle_invalid("a service's file is not valid in this version", "apply the policy again") from error
    return catalogue.documents, catalogue


def _library(texts: list[object]) -> Library:
    try:
        return library_of(BookDocument.model_validate(text) for text in texts)
    except (ValidationError, ValueInvalid) as error:
        raise _bundle_invalid("a price book is not valid in this version", "apply the policy again") from error


def _check_authorities(documents: list[TenantDocument], authorities: dict[str, object]) -> None:
    """Every connection that names an authority has its certificates, and none is left over."""
    named = {(d.tenant, one.what) for d in documents for one in named_authorities(d)}
    held: set[tuple[str, str]] = set()
    for tenant, of_tenant in authorities.items():
        if not isinstance(of_tenant, dict) or not of_tenant or not all(isinstance(v, str) for v in of_tenant.values()):
            raise _bundle_invalid("authorities are not certificates by connection", "apply the policy again")
        held.update((tenant, name) for name in of_tenant)
    if named != held:
        raise _bundle_invalid("authorities do not fit the connections that name one", "apply the policy again")


def _bundle_invalid(message: str, fix: str) -> PolicyInvalid:
    return PolicyInvalid((PolicyError(_IN_BUNDLE.file, _IN_BUNDLE.line, _IN_BUNDLE.column, message, fix),))


def _refuse(text: str) -> object:
    raise ValueError(f"not a whole number: {text}")
