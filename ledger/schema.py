"""The strict table of record types: every member of every type, in one place (docs/formats/ledger-record.md).

The sequencer refuses to write what this table does not admit, and the verifier reports it. An unknown type, member or
version is an error: a reader that skipped what it does not know could be shown two meanings of one record.

Members that later versions of the product will fill (delegation, units, attestation) are in the table as optional
from the start, because adding one breaks every verifier in the field.
"""

from collections.abc import Mapping
from typing import Final

from ledger.checks import (
    Check,
    Object,
    boolean,
    integer,
    list_of,
    map_of,
    natural,
    none_or,
    one_of,
    pattern,
    positive,
    remembered,
    status,
    text,
)
from ledger.errors import RecordRefused

VERSION: Final = 1
MAX_RECORD_BYTES: Final = 60 * 1024
"""c2sp.org/tlog-tiles: an entry of a bundle is at most 2^16 - 1 bytes; the rest is room for what wraps it."""
NO_TENANT: Final = "-"
"""The reserved tenant of callers that have proven none, and of the log itself."""
MAX_COMMENT: Final = 1024
NO_CURRENCY: Final = "XXX"
"""ISO 4217: no currency is involved. `cost.cur` of a call that has no price, and is counted otherwise."""

_name = text(256, 1)
_short = text(128)
_note = text(MAX_COMMENT)
_tenant = pattern(r"-|[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_call = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_code = pattern(r"[a-z][a-z0-9_]{0,63}")
_type = pattern(r"[a-z]+(?:\.[a-z]+)?")
_hash = pattern(r"[0-9a-f]{64}")
_key_id = pattern(r"[0-9a-f]{8}")
_digest = pattern(r"sha256:[0-9a-f]{64}")
_commit = pattern(r"hmac-sha256:[0-9a-f]{64}")
_inputs = pattern(r"(?:hmac-)?sha256:[0-9a-f]{64}")
"""Keyed where the inputs could be guessed (paths, queries), plain where they could not."""
_hex16 = pattern(r"[0-9a-f]{16}")
_hex32 = pattern(r"[0-9a-f]{32}")
_time = pattern(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_currency = pattern(r"[A-Z][A-Z0-9]{2,7}")
_member = pattern(r"[A-Za-z0-9_.\[\]/-]{1,128}")
_vkey = pattern(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{1,128}")
_signature = pattern(r"[A-Za-z0-9+/]{86}==")
_origin = pattern(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")

_actor = Object({"kind": one_of("uid", "system"), "id": text(64, 1), "name": _short})

_agent = remembered(
    Object(
        {
            "id": _name,
            "workflow": _name,
            "run": _name,
            "credential": _name,
            "auth": text(64, 1),
            "jkt": _short,
            "delegation": list_of(_name, 32),
            "subject": _commit,
        },
        optional=("jkt", "delegation", "subject"),
    )
)

_OP: Final[dict[str, Check]] = {
    "connector": none_or(_name),
    "tool": none_or(_name),
    "method": text(32, 1),
    "host": text(255, 1),
    "port": natural,
    "scheme": one_of("https", "http"),
    "route": none_or(text(2048)),
    "effect": one_of("read", "write", "delete", "unknown"),
    "irreversible": boolean,
}
_op = remembered(Object(_OP, optional=("irreversible",)))
_op_known = Object(_OP, optional=tuple(_OP))

_decision = Object(
    {
        "verdict": one_of("allow", "deny"),
        "policy": none_or(_digest),
        "epoch": natural,
        "rules": list_of(_short, 64),
        "reasons": list_of(Object({"code": _code, "rule": _short}, optional=("rule",)), 64),
        "inputs": none_or(_inputs),
        "approvals": list_of(natural, 64),
    }
)

_request = Object(
    {"commit": _commit, "digest": _digest, "len": none_or(natural), "media": none_or(_name), "streamed": boolean},
    optional=("digest", "streamed"),
)
_upload = Object({"commit": _commit, "len": natural, "complete": boolean})
_request_seen = Object(
    {"commit": _commit, "digest": _digest, "len": natural, "media": none_or(_name)}, optional=("commit", "digest")
)
_response = Object({"commit": _commit, "len": natural, "media": none_or(_name)}, optional=("commit",))
_secret = remembered(Object({"name": _name, "version": positive, "thumb": _short}))
_cost = Object(
    {
        "micro": natural,
        "cur": _currency,
        "price_book": _digest,
        "budget": list_of(_name, 64),
        "units": map_of(_member, natural, 32),
    },
    optional=("price_book", "units"),
)
_env = remembered(Object({"proxy": _short, "config": _short, "worker": _short, "unsafe": list_of(_short, 64)}))
_result = Object(
    {
        "status": one_of("confirmed", "failed", "timeout", "aborted", "indeterminate"),
        "http": none_or(status),
        "err": none_or(_short),
        "code": none_or(_code),
        "sent": none_or(boolean),
        "started_us": none_or(natural),
        "ended_us": none_or(natural),
        "upstream_id": _short,
        "attest": text(64),
    },
    optional=("upstream_id", "attest"),
)
_fields = map_of(_member, _commit, 256)
_answered = Object({"http": status})
_target = Object(
    {
        "kind": one_of("credential", "account", "tenant", "all"),
        "tenant": none_or(_tenant),
        "name": none_or(_name),
    }
)
_head = Object({"size": natural, "root": _hash})

_ENVELOPE: Final[dict[str, Check]] = {
    "v": lambda value: type(value) is int and value == VERSION,
    "type": _type,
    "log": _origin,
    "seq": natural,
    "prev": _hash,
    "nonce": _hex32,
    "ts": _time,
    "boot": _hex16,
    "mono_us": natural,
    "tenant": _tenant,
    "tseq": natural,
    "tprev": _hash,
}
ENVELOPE: Final = frozenset(_ENVELOPE)
"""Members that the sequencer assigns; content may not name them."""

_CALL: Final[dict[str, Check]] = {
    "call": _call,
    "attempt": positive,
    "parent": _call,
    "trace": _hex32,
    "span": _hex16,
    "session": _short,
    "outcome_key": _short,
}
_CALL_OPTIONAL: Final = ("parent", "trace", "span", "session", "outcome_key")

_CONTENT: Final[dict[str, tuple[dict[str, Check], tuple[str, ...]]]] = {
    # the life of a call
    "call.intent": (
        {
            **_CALL,
            "agent": _agent,
            "op": _op,
            "decision": _decision,
            "req": _request,
            "fields": _fields,
            "secret": none_or(_secret),
            "cost": none_or(_cost),
            "env": _env,
            "dial": text(64, 1),
        },
        (*_CALL_OPTIONAL, "fields", "dial"),
    ),
    "call.outcome": (
        {
            "call": _call,
            "attempt": positive,
            "intent": natural,
            "result": _result,
            "resp": none_or(_response),
            "cost": none_or(_cost),
            "upload": _upload,
        },
        ("upload",),
    ),
    "call.denied": (
        {
            **_CALL,
            "agent": _agent,
            "op": _op,
            "decision": _decision,
            "req": none_or(_request_seen),
            "fields": _fields,
            "secret": none_or(_secret),
            "cost": none_or(_cost),
            "env": _env,
            "dial": text(64, 1),
            "answered": _answered,
        },
        (*_CALL_OPTIONAL, "req", "fields", "secret", "cost", "dial"),
    ),
    "call.rejected": (
        {
            "call": _call,
            "reason": Object({"code": _code, "detail": _note}, optional=("detail",)),
            "source": text(128, 1),
            "door": text(64, 1),
            "agent": none_or(_agent),
            "op": none_or(_op_known),
            "answered": _answered,
            "env": _env,
        },
        ("call", "answered", "env"),
    ),
    "reject.summary": (
        {
            "window_us": natural,
            "counts": list_of(Object({"code": _code, "source": text(128, 1), "n": positive}), 512),
        },
        (),
    ),
    # what operators do
    "policy.activate": (
        {
            "policy": _digest,
            "previous": none_or(_digest),
            "actor": _actor,
            "files": list_of(Object({"name": _name, "digest": _digest})),
            "commit": _short,
            "author": _name,
            "approver": _name,
            "reason": _note,
        },
        ("commit", "author", "approver", "reason"),
    ),
    "policy.reject": ({"actor": _actor, "errors": natural, "commit": _short}, ("commit",)),
    "revocation.issue": ({"epoch": natural, "target": _target, "reason": _note, "actor": _actor}, ()),
    "revocation.effect": (
        {"epoch": natural, "cut": natural, "inflight": list_of(_call), "micros": natural},
        (),
    ),
    "revocation.restore": ({"epoch": natural, "target": _target, "reason": _note, "actor": _actor}, ()),
    "secret.set": ({"name": _name, "version": positive, "thumb": _short, "actor": _actor}, ()),
    "secret.remove": ({"name": _name, "version": positive, "thumb": _short, "actor": _actor}, ()),
    "token.issue": (
        {
            "credential": _name,
            "account": _name,
            "workflow": _name,
            "run": _name,
            "expires": natural,
            "epoch": natural,
            "actor": _actor,
        },
        (),
    ),
    "operator.act": ({"act": _name, "actor": _actor, "detail": map_of(_member, _note, 64)}, ()),
    "config.change": (
        {"config": _digest, "previous": none_or(_digest), "actor": _actor, "detail": map_of(_member, _note, 64)},
        ("detail",),
    ),
    # what the log says about itself
    "genesis": (
        {"root": _vkey, "key": _vkey, "blinding": _digest, "software": _short, "certificate": _signature},
        (),
    ),
    "ledger.start": ({"software": _short, "clean": boolean, "previous": none_or(natural)}, ()),
    "ledger.stop": ({"reason": _short}, ()),
    "ledger.halt": ({"phase": one_of("begin", "end"), "reason": _short, "free_bytes": natural}, ()),
    "ledger.recover": (
        {
            "segment": natural,
            "offset": natural,
            "bytes": natural,
            "sha256": _hash,
            "last": natural,
            "open": natural,
            "kept": boolean,
        },
        ("kept",),
    ),
    "key.add": ({"key": _vkey, "from_size": natural, "by_key": _signature, "by_root": _signature}, ()),
    "key.retire": ({"key_id": _key_id, "size": natural, "destroyed": boolean}, ()),
    "key.revoke": ({"key_id": _key_id, "from_size": natural, "reason": _note, "by_root": _signature}, ()),
    "clock.step": ({"delta_us": integer, "wall": _time}, ()),
    "seal": (
        {
            "size": natural,
            "open": natural,
            "policy": none_or(_digest),
            "key_id": _key_id,
            "tenants": natural,
            "heads": _hash,
            "checkpoint": none_or(Object({"size": natural, "root": _hash, "kept": boolean})),
            "rootlog": none_or(_head),
        },
        (),
    ),
}

RECORD: Final[dict[str, Object]] = {
    name: Object({**_ENVELOPE, **members}, optional=optional) for name, (members, optional) in _CONTENT.items()
}
"""Whole records by type: envelope and content."""
CONTENT: Final[dict[str, Object]] = {
    name: Object(members, optional=optional) for name, (members, optional) in _CONTENT.items()
}
"""Content by type: what a caller submits."""

OWN_TYPES: Final = frozenset(
    name for name in _CONTENT if name.partition(".")[0] in {"genesis", "ledger", "key", "clock", "seal"}
)
"""Types that only the sequencer writes; all belong to the reserved tenant."""

RESERVE_TYPES: Final = (
    frozenset({"call.outcome", "revocation.issue", "revocation.effect", "revocation.restore", "policy.activate"})
    | OWN_TYPES
)
"""What is still written when the disk is below its reserve: ends of what has begun, and stop orders."""


def check_content(type_: str, tenant: str, content: Mapping[str, object]) -> None:
    """The content may become a record of this type and tenant, or `RecordRefused` is raised."""
    schema = CONTENT.get(type_)
    if schema is None:
        raise RecordRefused("type_unknown", f"{type_[:64]!r} is no record type")
    if not schema(content):
        raise RecordRefused("schema", f"{type_}: {schema.explain(content)}")
    if _tenant(tenant) is None:
        raise RecordRefused("schema", "not a tenant's name")
    if type_ in OWN_TYPES and tenant != NO_TENANT:
        raise RecordRefused("schema", f"{type_} belongs to the reserved tenant")


def explain_record(record: object) -> str | None:
    """What is wrong with a parsed record, or None when it is of a known type and version and conforms."""
    if type(record) is not dict:
        return "the record is not an object"
    name = record.get("type")
    schema = RECORD.get(name) if isinstance(name, str) else None
    if schema is None:
        return "unknown record type"
    if not schema(record):
        return schema.explain(record) or "does not conform"
    if name in OWN_TYPES and record["tenant"] != NO_TENANT:
        return f"{name} belongs to the reserved tenant"
    return None
