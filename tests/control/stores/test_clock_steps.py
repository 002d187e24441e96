"""Clocks that step an hour either way, in zones that change theirs: no window is granted twice.

The windows are those of the policy's zone; the wall clock is Hypothesis's. Whatever it does, what is granted in a
window is never more than its cap.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.stores.limits import EmbeddedReservations
from rules.claims import RateClaim, Reserved, SpendClaim
from rules.limits.windows import window_of

CAP = 3
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia"]
CHANGES = [
    datetime(2026, 3, 29, 0, 30, tzinfo=UTC),
    datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
    datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
    datetime(2018, 11, 4, 2, 30, tzinfo=UTC),
    datetime(2011, 12, 30, 9, 30, tzinfo=UTC),
    datetime(2026, 4, 4, 14, 30, tzinfo=UTC),
]
steps = st.lists(st.sampled_from([-3600, -1800, -60, 0, 1, 600, 1800, 3600, 86_400]), min_size=1, max_size=40)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    per=st.sampled_from(["hour", "day", "month"]),
    zone=st.sampled_from(ZONES),
    start=st.sampled_from(CHANGES),
    offset=st.integers(-86_400, 86_400),
    moves=steps,
)
def test_no_window_is_granted_twice(per: str, zone: str, start: datetime, offset: int, moves: list[int]) -> None:
    now = start + timedelta(seconds=offset)
    zone_info = ZoneInfo(zone)
    store = EmbeddedReservations()
    granted: Counter[str] = Counter()
    newest = ""
    for move in moves:
        now += timedelta(seconds=move)
        window = window_of(per, now, zone_info)
        claim = SpendClaim(("acme", "agent", "USD", per), window.id, CAP, 1, "USD", window.resets_at)
        answer = store.reserve_now("c_1", (claim,))
        if isinstance(answer, Reserved):
            (charged,) = [claim for claim in answer.claims if isinstance(claim, SpendClaim)]
            assert charged.window >= newest
            newest = charged.window
            granted[charged.window] += 1
            store.settle(answer, {"price": 1})
    assert all(count <= CAP for count in granted.values())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moves=steps)
def test_no_rate_moves_with_the_wall_clock(moves: list[int]) -> None:
    """A bucket is filled by time that passes, not by a clock that is set."""
    wall = [1_795_000_000]
    store = EmbeddedReservations(monotonic_us=lambda: 1_000_000_000, wall_seconds=lambda: wall[0])
    rate = RateClaim(("acme", "agent", "rate"), 60_000_000, CAP, "1 per minute")
    granted = 0
    for move in moves:
        wall[0] += move
        granted += isinstance(store.reserve_now("c_1", (rate,)), Reserved)
    assert granted == min(CAP, len(moves))
