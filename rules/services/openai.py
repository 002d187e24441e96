"""OpenAI, also on Azure: `{"error": {"message", "type", "param", "code"}}`.

The SDK chooses its exception by status and hands on the inner object alone as `body` and its `code`
(`_client._make_status_error`), so our members stand in there too. It obeys `x-should-retry` before any status
(`_base_client._should_retry`), and otherwise retries 408, 409, 429 and 5xx after `Retry-After`.
"""

from typing import Final

from rules.services.service import JSON, Asked, Envelope, Problem, Service, beside, kind

_KINDS: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error",
}  # fmt: skip


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its error, our members at the top and inside."""
    error = beside(
        problem,
        message=problem.message,
        type=kind(problem.status, _KINDS, "server_error"),
        param=None,
        code=problem.code,
    )
    return Envelope(JSON, beside(problem, error=error))


OPENAI: Final = Service(
    "openai", ("api.openai.com", "*.openai.azure.com"), envelope, ("X-Should-Retry", "false")
)  # fmt: skip
