"""GitHub: `{"message", "documentation_url"}`.

PyGithub chooses `BadCredentialsException` by that very message and hands on the whole body as `data`
(`Requester.createException`). It retries every 5xx, and whatever has `Retry-After` after that time (`GithubRetry`); no
header stops it.
"""

from typing import Final

from rules.services.service import JSON, Asked, Envelope, Problem, Service, beside

_BAD_CREDENTIALS: Final = "Bad credentials"


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its message, our members beside it."""
    message = _BAD_CREDENTIALS if problem.status == 401 else problem.message
    return Envelope(JSON, beside(problem, message=message, documentation_url=problem.members["type"]))


GITHUB: Final = Service("github", ("api.github.com", "uploads.github.com", "github.com"), envelope, None)
