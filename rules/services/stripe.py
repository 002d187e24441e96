"""Stripe: `{"error": {"type", "code", "message"}}`, without which stripe-python reports an invalid response object.

stripe-python chooses its exception by status (`_api_requestor.specific_v1_api_error`), for v2 of the API by `type`, and
hands on the whole body as `json_body` and the inner object as `error`. It obeys `Stripe-Should-Retry` before any status
(`_http_client._should_retry`); a 429 it does not retry by itself.
"""

from typing import Final

from rules.services.service import JSON, Asked, Envelope, Problem, Service, beside, kind

_KINDS: Final = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit"}


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its error, our members at the top."""
    error = {
        "type": kind(problem.status, _KINDS, "api_error"),
        "code": problem.code,
        "message": problem.message,
        "doc_url": problem.members["type"],
    }
    return Envelope(JSON, beside(problem, error=error))


STRIPE: Final = Service("stripe", ("*.stripe.com",), envelope, ("Stripe-Should-Retry", "false"))
