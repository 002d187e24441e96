"""One call on its way through the steps: what is known so far, for whoever has to end it."""

import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from proxy.attempt import Attempt, Hold, Result
from proxy.costs import Cost
from proxy.exchange import Exchange
from proxy.fulfil import Credential
from proxy.http.response_head import ResponseHead
from proxy.live import LiveCall
from proxy.upload import Upload
from proxy.usage.tap import Tap
from proxy.usage.units import UnitsTold
from proxy.usage.used import Used
from rules.action import Action
from rules.call import Call
from rules.decision import Allowed, Reason
from rules.openings import Opening
from rules.policy.compile import Connection, TenantPolicy
from rules.timing import Timing

if TYPE_CHECKING:
    from proxy.deciding import Decided


def new_call_id() -> str:
    """Unique over all installations: 128 random bits."""
    return "c_" + secrets.token_urlsafe(16)


class CallRefused(Exception):
    """A call that has an identity is refused, with everything its record and its answer need."""

    def __init__(
        self,
        *reasons: Reason,
        retry_after_seconds: int | None = None,
        opening: Opening | None = None,
        fields: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(reasons[0].code)
        self.reasons = reasons
        self.retry_after_seconds = retry_after_seconds
        self.opening = opening
        """When its rules would let it out, where they close by the clock and that is known."""
        self.fields = fields
        """Header fields of the answer that say more of the refusal."""


class Journey:
    """One call on its way through the steps: what is known so far, for whoever has to end it."""

    __slots__ = (
        "actions", "allowed", "attempt", "body", "call", "connection", "cost", "credential", "decided", "exchange",
        "hold", "inspected", "judged_at", "live", "mark", "policy", "policy_epoch", "request_id", "timing", "told",
        "units", "upload", "used",
    )  # fmt: skip

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.mark = time.perf_counter_ns()
        self.call: Call | None = None
        self.live: LiveCall | None = None
        self.request_id: str | int | None = None
        """Of a JSON-RPC request, once its body was read: its answer names it."""
        self.policy: TenantPolicy | None = None
        self.policy_epoch = 0
        self.connection: Connection | None = None
        self.allowed: Allowed | None = None
        self.decided: Decided | None = None
        """By the rules, and on what; None before."""
        self.judged_at: datetime | None = None
        """Aware; when it was last found to be allowed. Later than `decided` where it was judged again since."""
        self.timing = Timing.ALWAYS
        """For how long that is known to hold."""
        self.credential: Credential | None = None
        self.actions: tuple[Action, ...] = ()
        """What the call asks for, without arguments; empty where that is not known."""
        self.body = b""
        self.inspected = False
        """True where `body` is what a rule read: decoded, in place of what came."""
        self.upload: Upload | None = None
        """A body that is streamed; `body` is empty then."""
        self.hold: Hold | None = None
        self.attempt: Attempt | None = None
        self.cost: Cost | None = None
        self.told: dict[str, int] = {}
        """What is known of meters by what was really sent and answered, in micro-units."""
        self.used: Used | None = None
        """Of a call that is paid by what it uses."""
        self.units: UnitsTold | None = None
        """Of a call whose reply says how many of what it asked for it got."""

    @property
    def call_id(self) -> str:
        """For messages; `-` before the call has one."""
        return "-" if self.call is None else self.call.id

    @property
    def connection_name(self) -> str | None:
        """The tenant's name for the destination."""
        return None if self.connection is None else self.connection.name

    def spent(self, result: Result) -> Mapping[str, int]:
        """What is due by how the call ended, by meter."""
        if self.cost is None:
            return {}
        told = self.used or self.units
        used = {} if told is None else told.told(whole=result.status == "confirmed")
        if self.used is not None and not used and (result.http is None or result.http < 500):
            used = self.used.untold
        return self.cost.due(result, {**self.told, **used})

    def begin_reading(self, response: ResponseHead) -> Tap | None:
        """The tap that the reply's body goes past, where it says what the call used."""
        reads = self.used or self.units
        return None if reads is None else reads.begin(response)

    @property
    def reads_reply(self) -> bool:
        """Whether the reply's body has to be readable."""
        reads = self.used or self.units
        return reads is not None and reads.reads_body
