"""What a service's own clients expect of an error: the shape of the body, and the word that stops their retries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

type Members = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal, as an envelope takes it."""

    code: str
    """Ours, permanent."""
    detail: str
    status: int
    """The HTTP status it is sent with."""
    call: str
    members: Members
    """All of our members (RFC 9457), `code`, `detail`, `status` and `call` among them."""
    retry_after_seconds: int | None

    @property
    def message(self) -> str:
        """One line for people; begins with the code, because many SDKs show nothing else."""
        return f"{self.code}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request decides about the form of its answer. Written by the agent: it decides about nothing else."""

    host: str
    content_type: str
    """Lower case, without parameters; empty when there is none."""
    request_id: str | int | None = None
    """By which the request wants its answer to name it; None where it has none, or none was read."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A body in the service's own form."""

    content_type: str
    body: Members | bytes
    """Members are sent as JSON."""
    headers: tuple[tuple[str, str], ...] = ()
    """Beside the ones that every refusal has."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service's row in the table."""

    name: str
    hosts: tuple[str, ...]
    """Exact names, and `*.example.com` for every name below one."""
    envelope: Callable[[Problem, Asked], Envelope]
    stop: tuple[str, str] | None
    """The header field by which its SDKs are told not to try again.

    None: they know none. A refusal that no retry can mend is then never sent as a 5xx, which they would retry, but as
    403.
    """
    query_keys: frozenset[bytes] = frozenset()
    """Names of query parameters in which it takes a credential, lower-case, with hyphens for all punctuation: beside
    the connection's own they would make two."""

    def has(self, host: str) -> bool:
        """True if a normalised host name is one of the service's."""
        return any(host.endswith(known[1:]) if known.startswith("*.") else host == known for known in self.hosts)

    def final_status(self, status: int) -> int:
        """The status of a refusal that no retry can mend."""
        return 403 if status >= 500 and self.stop is None else status


JSON: Final = "application/json"


def beside(problem: Problem, **own: object) -> dict[str, object]:
    """The service's members, and ours under the names that it leaves free."""
    return {**own, **{name: value for name, value in problem.members.items() if name not in own}}


def kind(status: int, kinds: Mapping[int, str], server: str) -> str:
    """The service's word for a status: that of the same status, else `server` for 5xx, else that of 400."""
    return kinds.get(status) or (server if status >= 500 else kinds[400])
