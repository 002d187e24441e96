"""The services whose clients get errors in their own form, in a small table. A new one is one file and one line here.

A connection's service is what its policy says, else what its host says. No call is decided by it: it is the form of an
answer, and the header that keeps an SDK from asking again what will be refused again.
"""

from typing import Final

from rules.services.anthropic import ANTHROPIC
from rules.services.aws import AWS
from rules.services.github import GITHUB
from rules.services.google import GOOGLE
from rules.services.mcp import MCP
from rules.services.openai import OPENAI
from rules.services.service import Asked, Envelope, Problem, Service
from rules.services.slack import SLACK
from rules.services.stripe import STRIPE
from rules.services.twilio import TWILIO

SERVICES: Final = (ANTHROPIC, AWS, GITHUB, GOOGLE, MCP, OPENAI, SLACK, STRIPE, TWILIO)
"""In the order of their names; no host belongs to two."""

NAMES: Final = tuple(service.name for service in SERVICES)


def named(name: str) -> Service | None:
    """The service of that name."""
    return next((service for service in SERVICES if service.name == name), None)


def of_host(host: str) -> Service | None:
    """The service that a normalised host name belongs to."""
    return next((service for service in SERVICES if service.has(host)), None)


__all__ = ["NAMES", "SERVICES", "Asked", "Envelope", "Problem", "Service", "named", "of_host"]
