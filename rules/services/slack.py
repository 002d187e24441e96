"""Slack: `{"ok": false, "error"}`.

slack_sdk raises `SlackApiError` for every status but 200 and hands on the body as `response`
(`SlackResponse.validate`). It retries 429 (after `Retry-After`), 500 and 503 only with handlers that the program
installs, and knows no header that stops them.
"""

from typing import Final

from rules.services.service import JSON, Asked, Envelope, Problem, Service, beside


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its error is our code, our members beside it."""
    return Envelope(JSON, beside(problem, ok=False, error=problem.code))


SLACK: Final = Service("slack", ("slack.com", "*.slack.com"), envelope, None, frozenset({b"token"}))
