"""Every code a refusal can carry, in one table.

A code is permanent: programs branch on it, records keep it for years. A code is never renamed and never given a
second meaning; one that is no longer used stays in the table, marked retired.

The HTTP status follows the design's contract: statuses that SDKs retry by themselves (408, 409, 429, 5xx) are used only
where a retry by the same program can succeed. 403 and 400 are final for the same request.
"""

from dataclasses import dataclass
from enum import StrEnum


class Category(StrEnum):
    """Who can do something about a refusal, and when."""

    TRANSIENT = "transient"
    """The same request may succeed later, with no one changing anything."""
    DETERMINISTIC = "deterministic"
    """The same request will be refused again until the program or the policy changes."""
    JUDGMENT = "judgment"
    """A human has to decide."""
    GOVERNANCE = "governance"
    """Stopped by an operator or by an owner's limit."""


class Code(StrEnum):
    """The permanent codes. See `TABLE` for status, category and advice."""

    # (1) admit
    MALFORMED_REQUEST = "malformed_request"
    AMBIGUOUS_FRAMING = "ambiguous_framing"
    AMBIGUOUS_TARGET = "ambiguous_target"
    DESTINATION_MISMATCH = "destination_mismatch"
    HEADERS_TOO_LARGE = "headers_too_large"
    BODY_TOO_LARGE = "body_too_large"
    ENCODING_REFUSED = "encoding_refused"
    METHOD_REFUSED = "method_refused"
    PROTOCOL_REFUSED = "protocol_refused"
    UPGRADE_REFUSED = "upgrade_refused"
    REQUEST_TIMEOUT = "request_timeout"
    # (2) identify
    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_INVALID = "credential_invalid"
    CREDENTIAL_EXPIRED = "credential_expired"
    CREDENTIAL_REVOKED = "credential_revoked"
    # (3) classify, (4) decide
    NO_POLICY = "no_policy"
    ACCOUNT_UNKNOWN = "account_unknown"
    ACCOUNT_SUSPENDED = "account_suspended"
    DESTINATION_UNKNOWN = "destination_unknown"
    DESTINATION_FORBIDDEN = "destination_forbidden"
    RULE_DENIED = "rule_denied"
    NOT_ALLOWED = "not_allowed"
    CONDITION_FAILED = "condition_failed"
    CONTENT_REFUSED = "content_refused"
    AMOUNT_UNKNOWN = "amount_unknown"
    ACCOUNT_MISMATCH = "account_mismatch"
    BATCH_REFUSED = "batch_refused"
    DEFINITION_CHANGED = "definition_changed"
    LOOKUP_FAILED = "lookup_failed"
    GUARD_FAILED = "guard_failed"
    # (5) reserve
    RATE_LIMITED = "rate_limited"
    CONCURRENCY_REACHED = "concurrency_reached"
    SPEND_CAP_REACHED = "spend_cap_reached"
    IDEMPOTENCY_IN_FLIGHT = "idempotency_in_flight"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    LIMITS_UNAVAILABLE = "limits_unavailable"
    # (6) commit
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    # (7) fulfil
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105 - a code, no secret
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_UNTRUSTED = "upstream_untrusted"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    REVOKED_IN_FLIGHT = "revoked_in_flight"
    # any step
    CONNECTIONS_REACHED = "connections_reached"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    CONTROL_UNAVAILABLE = "control_unavailable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a code means to the program that reads it."""

    status: int
    category: Category
    title: str
    how_to_proceed: str

    @property
    def retryable(self) -> bool:
        """True where the same request may succeed later by itself."""
        return self.category is Category.TRANSIENT


_T, _D, _G = Category.TRANSIENT, Category.DETERMINISTIC, Category.GOVERNANCE

TABLE: dict[Code, Entry] = {
    Code.MALFORMED_REQUEST: Entry(400, _D, "Malformed request", "Send a request that follows RFC 9112."),
    Code.AMBIGUOUS_FRAMING: Entry(
        400,
        _D,
        "Ambiguous message framing",
        "Send either one Content-Length or Transfer-Encoding: chunked, without trailers.",
    ),
    Code.AMBIGUOUS_TARGET: Entry(
        400,
        _D,
        "Ambiguous request target",
        "Send a path without dot segments, empty segments, encoded slashes or control characters.",
    ),
    Code.DESTINATION_MISMATCH: Entry(
        400, _D, "Destination mismatch", "CONNECT host, TLS server name and Host header must name the same host."
    ),
    Code.HEADERS_TOO_LARGE: Entry(431, _D, "Header section too large", "Send fewer or smaller header fields."),
    Code.BODY_TOO_LARGE: Entry(413, _D, "Body too large to inspect", "Send a smaller body."),
    Code.ENCODING_REFUSED: Entry(
        415,
        _D,
        "Body cannot be decoded",
        "Send the body without Content-Encoding, or with one of gzip, deflate, br and zstd.",
    ),
    Code.METHOD_REFUSED: Entry(400, _D, "Method refused", "Use a method that the service documents."),
    Code.PROTOCOL_REFUSED: Entry(400, _D, "Protocol refused", "Speak HTTP/1.1, inside TLS after a CONNECT."),
    Code.UPGRADE_REFUSED: Entry(400, _D, "Upgrade refused", "Use plain HTTP/1.1 requests; upgrades are not carried."),
    Code.REQUEST_TIMEOUT: Entry(408, _T, "Request not received in time", "Send the whole request without pausing."),
    Code.CREDENTIAL_MISSING: Entry(
        407, _D, "Credential required", "Present an Exeat credential, or start the program with `exeat run`."
    ),
    Code.CREDENTIAL_INVALID: Entry(407, _D, "Credential not valid", "Ask for a new credential."),
    Code.CREDENTIAL_EXPIRED: Entry(407, _D, "Credential expired", "Ask for a new credential, or use `exeat run`."),
    Code.CREDENTIAL_REVOKED: Entry(
        407, _G, "Credential revoked", "Stop. An operator has revoked this credential; do not retry."
    ),
    Code.NO_POLICY: Entry(403, _D, "No policy is active", "An operator has to apply a policy first."),
    Code.ACCOUNT_UNKNOWN: Entry(403, _D, "Unknown service account", "Ask the platform team to declare this account."),
    Code.ACCOUNT_SUSPENDED: Entry(
        403,
        _G,
        "Service account suspended",
        "Stop and do not retry. Its owner looks into it, and an operator runs exeat resume; the credential stays good.",
    ),
    Code.DESTINATION_UNKNOWN: Entry(
        403, _D, "Destination is no connection of this tenant", "Ask the platform team for a connection to this host."
    ),
    Code.DESTINATION_FORBIDDEN: Entry(
        403, _D, "Destination address is forbidden", "The name resolves to an address that may not be dialled."
    ),
    Code.RULE_DENIED: Entry(403, _D, "Denied by a rule", "Do not retry; the named rule forbids this call."),
    Code.NOT_ALLOWED: Entry(403, _D, "No rule allows this call", "Do not retry; ask for a rule that allows it."),
    Code.CONDITION_FAILED: Entry(
        403,
        _D,
        "A rule's condition cannot be told",
        "Send every field that the rule reads, as the type that the service documents.",
    ),
    Code.CONTENT_REFUSED: Entry(
        415,
        _D,
        "Body cannot be read",
        "Send JSON or a form, in UTF-8, with its Content-Type, and no name twice.",
    ),
    Code.AMOUNT_UNKNOWN: Entry(
        403,
        _D,
        "Amount cannot be determined",
        "State the amount, and what the service needs to know its currency by.",
    ),
    Code.ACCOUNT_MISMATCH: Entry(
        403, _D, "Another account at the service", "Name the account that the connection is bound to."
    ),
    Code.BATCH_REFUSED: Entry(403, _D, "Requests inside a request", "Send each of the requests by itself."),
    Code.DEFINITION_CHANGED: Entry(
        403, _D, "The tool is not what it was", "Ask the platform team to look at the server's new definition of it."
    ),
    Code.LOOKUP_FAILED: Entry(
        502, _T, "The service did not say what a rule asks for", "Retry later; nothing of the call was sent."
    ),
    Code.GUARD_FAILED: Entry(503, _D, "A check could not be completed", "Report the call's id to the platform team."),
    Code.RATE_LIMITED: Entry(429, _T, "Rate limit reached", "Wait for Retry-After seconds."),
    Code.CONCURRENCY_REACHED: Entry(429, _T, "Too many calls in flight", "Wait for a call to finish, then retry."),
    Code.SPEND_CAP_REACHED: Entry(
        403, _G, "Spend cap reached", "Do not retry before the window ends; ask the account's owner for more."
    ),
    Code.IDEMPOTENCY_IN_FLIGHT: Entry(
        409, _T, "The same call is in flight", "Wait for Retry-After seconds, then send the same request again."
    ),
    Code.IDEMPOTENCY_CONFLICT: Entry(
        403, _D, "Another call had this idempotency key", "Send a new call under a new idempotency key."
    ),
    Code.LIMITS_UNAVAILABLE: Entry(503, _T, "Limits cannot be checked", "Retry later."),
    Code.LEDGER_UNAVAILABLE: Entry(503, _T, "The call cannot be recorded", "Retry later."),
    Code.SECRET_UNAVAILABLE: Entry(
        503, _D, "The connection's secret is unavailable", "An operator has to set the secret."
    ),
    Code.UPSTREAM_UNREACHABLE: Entry(502, _T, "Upstream cannot be reached", "Retry later."),
    Code.UPSTREAM_UNTRUSTED: Entry(
        502, _D, "Upstream certificate not trusted", "Report it; the service's certificate does not verify."
    ),
    Code.UPSTREAM_TIMEOUT: Entry(504, _T, "Upstream did not answer in time", "The call may have had its effect."),
    Code.UPSTREAM_PROTOCOL: Entry(502, _T, "Upstream broke the protocol", "The call may have had its effect."),
    Code.REVOKED_IN_FLIGHT: Entry(
        403, _G, "Revoked while in flight", "Stop. An operator has revoked this credential; do not retry."
    ),
    Code.CONNECTIONS_REACHED: Entry(
        429, _T, "Too many connections", "Close connections that are not used, or reuse them; retry after Retry-After."
    ),
    Code.OVERLOADED: Entry(503, _T, "Exeat is busy", "Wait for Retry-After seconds, then retry."),
    Code.DRAINING: Entry(503, _T, "Exeat is shutting down", "Retry; another instance or the next start will answer."),
    Code.CONTROL_UNAVAILABLE: Entry(
        503, _T, "Revocations cannot be heard", "Retry; another worker will answer, or this one once it hears again."
    ),
    Code.INTERNAL: Entry(503, _D, "Internal error", "Report the call's id to the platform team."),
}
"""One entry per code; a test checks that none is missing."""
