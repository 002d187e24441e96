"""Google: `{"error": {"code", "message", "status", "errors", "details"}}`, a `google.rpc.ErrorInfo` among the details.

google-api-python-client shows `error.message` as `reason` and `error.details` as `error_details` (`errors.HttpError`).
Where the program asks for retries it retries 429 and 5xx, and 403 where `errors[0].reason` is its own word for a rate
limit (`http._should_retry_response`), with pauses of its own; no header stops it.
"""

from typing import Final

from rules.services.service import JSON, Asked, Envelope, Problem, Service, beside, kind

_KINDS: Final = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_DOMAIN: Final = "exeat.dev"


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its error with our code as the reason, our members at the top."""
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": problem.code,
        "domain": _DOMAIN,
        "metadata": {name: str(value) for name, value in problem.members.items()},
    }
    error = {
        "code": problem.status,
        "message": problem.message,
        "status": kind(problem.status, _KINDS, "UNAVAILABLE"),
        "errors": [{"message": problem.message, "domain": _DOMAIN, "reason": problem.code}],
        "details": [info],
    }
    return Envelope(JSON, beside(problem, error=error))


GOOGLE: Final = Service("google", ("*.googleapis.com",), envelope, None, frozenset({b"key", b"oauth-token"}))
