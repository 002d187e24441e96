"""A refusal as the agent's program reads it: RFC 9457 problem details with permanent members.

A known service's clients get it in that service's own envelope, our members beside theirs, so that an SDK raises its
own exception and does not ask again what will be refused again.
"""

import json
from dataclasses import dataclass
from typing import Final

from rules.codes import TABLE, Category, Code
from rules.decision import Reason
from rules.openings import Opening
from rules.services import Asked, Envelope, Problem, Service

_REASONS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_CHALLENGE: Final = 'Basic realm="exeat", charset="UTF-8"'
_STOP: Final = ("X-Should-Retry", "false")
"""Read by the SDKs of many services (all that one generator makes), which else retry every 408, 409, 429 and 5xx."""
_RETRY_AFTER: Final = {
    Code.CONNECTIONS_REACHED: 5,
    Code.OVERLOADED: 2,
    Code.IDEMPOTENCY_IN_FLIGHT: 1,
    Code.CONCURRENCY_REACHED: 1,
}
"""Seconds to wait where nobody knows better: what these codes speak of changes within seconds."""
_NOT_BEFORE: Final = "Do not retry before opens_at; until then the same request is refused."
DOCUMENTATION: Final = "https://exeat.dev/denials#"
"""Prefix of the `type` member: an identifier, stable for ever, that need not resolve (RFC 9457 3.1.1)."""


@dataclass(frozen=True, slots=True)
class Denial:
    """One refusal, ready to be sent."""

    reason: Reason
    call: str
    policy: str | None = None
    retry_after_seconds: int | None = None
    service: Service | None = None
    """Whose clients it is for; None: problem details."""
    host: str = ""
    """The host that they asked."""
    request_id: str | int | None = None
    """By which the request wants its answer to name it, as far as its body was read."""
    opening: Opening | None = None
    """When the rules let the same request out, where they close by the clock. Said in the body alone: clients wait for
    as long as a `Retry-After` says, with the program that made the call, and this may be days."""
    fields: tuple[tuple[str, str], ...] = ()
    """Header fields that say more of the refusal."""

    @property
    def final(self) -> bool:
        """True where the same request will be refused again."""
        return TABLE[self.reason.code].category is not Category.TRANSIENT

    def __post_init__(self) -> None:
        if self.retry_after_seconds is None:
            object.__setattr__(self, "retry_after_seconds", _RETRY_AFTER.get(self.reason.code))

    def status(self, *, in_tunnel: bool) -> int:
        """The HTTP status. 407 belongs to proxies; inside a tunnel the agent believes to talk to the origin, so 401."""
        status = TABLE[self.reason.code].status
        if self.service is not None and self.final:
            status = self.service.final_status(status)
        return 401 if status == 407 and in_tunnel else status

    @property
    def how_to_proceed(self) -> str:
        """What the program can do."""
        return TABLE[self.reason.code].how_to_proceed if self.opening is None else _NOT_BEFORE

    def members(self, status: int) -> dict[str, object]:
        """The members of the problem details."""
        entry = TABLE[self.reason.code]
        members: dict[str, object] = {
            "type": DOCUMENTATION + self.reason.code,
            "title": entry.title,
            "status": status,
            "detail": self.reason.detail,
            "code": str(self.reason.code),
            "category": str(entry.category),
            "call": self.call,
            "how_to_proceed": self.how_to_proceed,
        }
        if self.reason.rule is not None:
            members["rule"] = self.reason.rule
        if self.policy is not None:
            members["policy"] = self.policy
        if self.retry_after_seconds is not None:
            members["retry_after"] = self.retry_after_seconds
        if self.opening is not None:
            members["retry_after"] = self.opening.seconds
            members["opens_at"] = self.opening.at.isoformat()
        return members

    def envelope(self, status: int, content_type: str) -> Envelope:
        """The body with its type, in the form that the service's clients read. `content_type`: the request's."""
        members = self.members(status)
        if self.service is None:
            return Envelope("application/problem+json", members)
        code, detail = str(self.reason.code), self.reason.detail
        problem = Problem(code, detail, status, self.call, members, self.retry_after_seconds)
        return self.service.envelope(problem, Asked(self.host, content_type, self.request_id))

    def text(self) -> bytes:
        """One line for programs that show a server's words only when they are plain text."""
        return f"{self.reason.code}: {self.reason.detail} ({self.how_to_proceed} Call {self.call})\n".encode()

    def render(
        self,
        *,
        in_tunnel: bool,
        keep_alive: bool,
        head_only: bool = False,
        as_text: bool = False,
        content_type: str = "",
    ) -> bytes:
        """The whole response; `as_text` for agents that would not show problem details to their user.

        `content_type`: the request's, lower-case and without parameters; some services answer as they are asked.
        """
        status = self.status(in_tunnel=in_tunnel)
        code = self.reason.code
        envelope = (
            Envelope("text/plain; charset=utf-8", self.text()) if as_text else self.envelope(status, content_type)
        )  # fmt: skip
        body = envelope.body
        if not isinstance(body, bytes):
            body = json.dumps(body, separators=(",", ":")).encode()
        lines = [
            f"HTTP/1.1 {status} {_REASONS[status]}",
            f"Content-Type: {envelope.content_type}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            f"Exeat-Call: {self.call}",
            f"Exeat-Code: {code}",
        ]
        lines.extend(f"{name}: {value}" for name, value in envelope.headers)
        if self.final:
            stop = None if self.service is None else self.service.stop
            lines.extend(f"{name}: {value}" for name, value in dict.fromkeys((_STOP, stop or _STOP)))
        if self.retry_after_seconds is not None:
            lines.append(f"Retry-After: {self.retry_after_seconds}")
        lines.extend(f"{name}: {value}" for name, value in self.fields)
        if status == 407:
            lines.append(f"Proxy-Authenticate: {_CHALLENGE}")
        elif status == 401:
            lines.append('WWW-Authenticate: Bearer realm="exeat"')
            if code is Code.CREDENTIAL_MISSING:  # git shows its credential only to whom asks for Basic
                lines.append(f"WWW-Authenticate: {_CHALLENGE}")
        if not keep_alive:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        return head if head_only else head + body


def denial(code: Code, detail: str, call: str, *, rule: str | None = None) -> Denial:
    """A denial for one reason, outside of any policy."""
    return Denial(Reason(code, detail, rule), call)
