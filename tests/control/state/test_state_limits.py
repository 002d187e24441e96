"""Limits and the real ledger: what was spent before a restart is spent after it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from control.state import State
from credentials.actor import Actor
from ledger import Receipt
from rules.claims import Refused, Reserved, SpendClaim
from rules.codes import Code

DIGEST = "sha256:" + "0" * 64
COMMIT = "hmac-sha256:" + "0" * 64
KEY = ("acme", "agent", "USD", "day")


def claim(window: str = "2026-11-20", amount: int = 1_000_000) -> SpendClaim:
    return SpendClaim(KEY, window, 5_000_000, amount, "USD", 2_000_000_000)


def intent(state: State, call: str) -> Receipt:
    content: dict[str, Any] = {
        "call": call,
        "attempt": 1,
        "agent": {"id": "agent", "workflow": "w", "run": "r", "credential": "k", "auth": "jwt"},
        "op": {
            "connector": "tickets",
            "tool": None,
            "method": "GET",
            "host": "acme.zendesk.com",
            "port": 443,
            "scheme": "https",
            "route": "/**",
            "effect": "read",
        },
        "decision": {
            "verdict": "allow",
            "policy": state.policy.digest if state.policy is not None else None,
            "epoch": state.policy_epoch,
            "rules": ["read"],
            "reasons": [],
            "inputs": DIGEST,
            "approvals": [],
        },
        "req": {"commit": COMMIT, "len": 0, "media": None},
        "secret": None,
        "cost": {"micro": 1_000_000, "cur": "USD", "budget": ["acme/agent/USD/day/2026-11-20"]},
        "env": {"proxy": "exeat", "config": "", "worker": "0", "unsafe": []},
    }
    return state.ledger.submit("call.intent", "acme", content).result(10)


def outcome(state: State, call: str, receipt: Receipt, micros: int) -> None:
    content: dict[str, Any] = {
        "call": call,
        "attempt": 1,
        "intent": receipt.seq,
        "result": {
            "status": "confirmed",
            "http": 200,
            "err": None,
            "code": None,
            "sent": True,
            "started_us": 1,
            "ended_us": 2,
        },
        "resp": None,
        "cost": {"micro": micros, "cur": "USD", "budget": ["acme/agent/USD/day/2026-11-20"]},
    }
    state.ledger.submit("call.outcome", "acme", content).result(10)


def one_call(state: State, call: str, micros: int) -> None:
    reserved = state.reservations.reserve_now(call, (claim(),))
    assert isinstance(reserved, Reserved)
    receipt = intent(state, call)
    state.reservations.settle(reserved, {"price": micros})
    outcome(state, call, receipt, micros)


def used(state: State) -> list[tuple[str, str, int, int]]:
    return [(b.key, b.window, b.spent_micros, b.reserved_micros) for b in state.reservations.budgets()]


def test_over_a_clean_stop_a_snapshot_and_a_crash(folder: Path, policy_file: Callable[..., Path], ana: Actor) -> None:
    with State.open(folder, create=True) as state:
        state.apply_policy(policy_file(), ana)
        one_call(state, "c_1", 1_000_000)
        one_call(state, "c_2", 500_000)
    state = State.open(folder, create=False)
    assert used(state) == [("acme/agent/USD/day", "2026-11-20", 1_500_000, 0)]
    one_call(state, "c_3", 1_000_000)
    state.save_limits()
    one_call(state, "c_4", 1_000_000)
    # The process dies with a call in flight: nothing is saved any more, the intent is open.
    state.reservations.reserve_now("c_5", (claim(),))
    intent(state, "c_5")
    state.ledger.close()
    state._close_stores()
    state._folder.close()
    with State.open(folder, create=False) as state:
        assert used(state) == [("acme/agent/USD/day", "2026-11-20", 4_500_000, 0)]
        refused = state.reservations.reserve_now("c_6", (claim(),))
        assert isinstance(refused, Refused)
        assert refused.code is Code.SPEND_CAP_REACHED
        assert isinstance(state.reservations.reserve_now("c_7", (claim("2026-11-21"),)), Reserved)
