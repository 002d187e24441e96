"""What ledger tests share: valid record contents, a clock that obeys, and a ledger in a fresh directory."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ledger import Ledger, Limits, MemoryLockStore

POLICY = "sha256:" + "ab" * 32
COMMIT = "hmac-sha256:" + "cd" * 32
ACTOR = {"kind": "uid", "id": "1000", "name": "ana"}
AGENT = {"id": "support-agent", "workflow": "refunds", "run": "r_1", "credential": "jti-1", "auth": "jwt"}
OP = {
    "connector": "tickets",
    "tool": None,
    "method": "GET",
    "host": "acme.zendesk.com",
    "port": 443,
    "scheme": "https",
    "route": "/api/v2/tickets/{id}",
    "effect": "read",
}
ENV = {"proxy": "0.1.0", "config": "-", "worker": "w1", "unsafe": []}


def decision(verdict: str = "allow", policy: str | None = POLICY) -> dict[str, object]:
    return {
        "verdict": verdict,
        "policy": policy,
        "epoch": 0,
        "rules": ["read-tickets"] if verdict == "allow" else [],
        "reasons": [] if verdict == "allow" else [{"code": "rule_denied", "rule": "never"}],
        "inputs": None,
        "approvals": [],
    }


def cost(micro: int = 2000) -> dict[str, object]:
    return {"micro": micro, "cur": "USD", "budget": ["acme/support-agent/USD/day/2026-11-20"]}


def activate(policy: str = POLICY) -> tuple[str, str, dict[str, object]]:
    content = {
        "policy": policy,
        "previous": None,
        "actor": ACTOR,
        "files": [{"name": "acme.yaml", "digest": policy}],
    }
    return "policy.activate", "-", content


def intent(call: str, tenant: str = "acme", attempt: int = 1, **changes: object) -> tuple[str, str, dict[str, object]]:
    content = {
        "call": call,
        "attempt": attempt,
        "agent": AGENT,
        "op": OP,
        "decision": decision(),
        "req": {"commit": COMMIT, "len": 0, "media": None},
        "fields": {"path": COMMIT},
        "secret": {"name": "zendesk/prod", "version": 1, "thumb": "0123456789abcdef"},
        "cost": cost(),
        "env": ENV,
        "dial": "public",
    }
    return "call.intent", tenant, {**content, **changes}


def outcome(
    call: str, seq: int, tenant: str = "acme", attempt: int = 1, status: str = "confirmed", **changes: object
) -> tuple[str, str, dict[str, object]]:
    content = {
        "call": call,
        "attempt": attempt,
        "intent": seq,
        "result": {
            "status": status,
            "http": 200,
            "err": None,
            "code": None,
            "sent": True,
            "started_us": 1,
            "ended_us": 2,
        },
        "resp": {"commit": COMMIT, "len": 446, "media": "application/json"},
        "cost": cost(),
    }
    return "call.outcome", tenant, {**content, **changes}


def denied(call: str, tenant: str = "acme", attempt: int = 1, **changes: object) -> tuple[str, str, dict[str, object]]:
    content = {
        "call": call,
        "attempt": attempt,
        "agent": AGENT,
        "op": OP,
        "decision": decision("deny"),
        "env": ENV,
        "answered": {"http": 403},
    }
    return "call.denied", tenant, {**content, **changes}


def rejected(**changes: object) -> tuple[str, str, dict[str, object]]:
    content = {
        "reason": {"code": "credential_missing"},
        "source": "local",
        "door": "forward",
        "agent": None,
        "op": None,
    }
    return "call.rejected", "-", {**content, **changes}


class SteppedClock:
    """A clock that moves by one millisecond a reading and wherever a test sends it."""

    def __init__(self, wall_us: int = 1_795_000_000_000_000) -> None:
        self.wall = wall_us
        self.mono = 1_000_000

    def wall_us(self) -> int:
        self.wall += 1000
        return self.wall

    def monotonic_us(self) -> int:
        self.mono += 1000
        return self.mono

    def advance(self, micros: int) -> None:
        self.wall += micros
        self.mono += micros


SMALL = Limits(reserve_bytes=0, ballast_bytes=4096, seal_active_seconds=3600, seal_idle_seconds=3600)
"""No seals but those a test causes by opening and closing; no dependence on the machine's free space."""


@pytest.fixture
def records() -> SimpleNamespace:
    """Contents of records that conform, as (type, tenant, content)."""
    return SimpleNamespace(
        activate=activate,
        intent=intent,
        outcome=outcome,
        denied=denied,
        rejected=rejected,
        decision=decision,
        cost=cost,
        policy=POLICY,
        commit=COMMIT,
        actor=ACTOR,
        agent=AGENT,
        op=OP,
        env=ENV,
    )


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def store() -> MemoryLockStore:
    return MemoryLockStore()


@pytest.fixture
def limits() -> Limits:
    return SMALL


@pytest.fixture
def world(tmp_path: Path, store: MemoryLockStore, clock: SteppedClock) -> Iterator[Callable[..., Ledger]]:
    """Opens (at first creates) the ledger of the test's directory; what is open at the end is closed."""
    opened: list[Ledger] = []
    numbers = itertools.count()

    def ledger(**changes: object) -> Ledger:
        arguments = {
            "keys": tmp_path / "keys",
            "lock_store": store,
            "clock": clock,
            "limits": SMALL,
            **changes,
        }
        directory = tmp_path / "ledger"
        if next(numbers) == 0 and not (directory / "LEDGER.json").exists():
            made = Ledger.create(directory, origin="exeat.test/log", **arguments)  # type: ignore[arg-type]
        else:
            made = Ledger.open(directory, **arguments)  # type: ignore[arg-type]
        opened.append(made)
        return made

    yield ledger
    for made in opened:
        made._thread.join(0) if made._lock is None else _close_quietly(made)


def _close_quietly(made: Ledger) -> None:
    try:
        made.close()
    except Exception:  # a ledger that a test has broken on purpose
        return
