"""Anthropic: `{"type": "error", "error": {"type", "message", "details"}, "request_id"}`.

The SDK chooses its exception by status, hands on the whole body as `body`, `error.type` as `type`,
`error.details.error_code` as `error_code` and the header `request-id` (`_exceptions.APIStatusError`). It obeys
`x-should-retry` before any status.
"""

from typing import Final

from rules.services.service import JSON, Asked, Envelope, Problem, Service, beside, kind

_KINDS: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 408: "timeout_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
}  # fmt: skip


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its error, our members at the top."""
    error = {
        "type": kind(problem.status, _KINDS, "api_error"),
        "message": problem.message,
        "details": {"error_code": problem.code},
    }
    own = (("request-id", problem.call),)
    return Envelope(JSON, beside(problem, type="error", error=error, request_id=problem.call), own)


ANTHROPIC: Final = Service("anthropic", ("api.anthropic.com",), envelope, ("X-Should-Retry", "false"))
