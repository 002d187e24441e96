"""Twilio: `{"code", "message", "more_info", "status", "details"}` with a number for a code.

twilio-python hands on `code` and `details` as those of `TwilioRestException`. A body with `type`, `title`, `status` and
`code` it takes for another generation of the API; then it raises `TwilioServiceException` (`Version.exception`),
which few programs catch; so ours stand whole in `details` and nowhere else. It retries nothing by itself.
"""

from typing import Final

from rules.services.service import JSON, Asked, Envelope, Problem, Service

_NUMBERS: Final = {401: 20003, 403: 20006, 429: 20429, 503: 20503}
"""Its words for: authenticate, access denied, too many requests, service unavailable. Others: the status, which the SDK
takes too where there is no code."""


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its error, our members as its details."""
    own = {
        "code": _NUMBERS.get(problem.status, problem.status),
        "message": problem.message,
        "more_info": problem.members["type"],
        "status": problem.status,
        "details": dict(problem.members),
    }
    return Envelope(JSON, own)


TWILIO: Final = Service("twilio", ("*.twilio.com",), envelope, None)
