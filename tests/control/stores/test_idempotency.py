"""Keys are bounded in number, and what hangs at the head of the line keeps nobody else's."""

from control.stores.idempotency import IdempotencyKeys, Known
from control.stores.verdicts import ONCE_SECONDS
from rules.claims import OnceClaim, Refused
from rules.codes import Code

DAY_US = ONCE_SECONDS * 1_000_000


def claim(name: str, digest: str = "d") -> OnceClaim:
    return OnceClaim(("acme", "agent", "once", name), digest)


def charge(keys: IdempotencyKeys, name: str, now_us: int) -> None:
    assert not isinstance(keys.take(claim(name), now_us), Refused)
    keys.ended(claim(name).key, whole=True)


def test_beyond_the_most_the_oldest_is_forgotten_and_charged_anew() -> None:
    keys = IdempotencyKeys(most=10)
    for number in range(25):
        charge(keys, str(number), number)
    assert len(keys) == 10
    assert not keys.paid([claim("14").key], 25)
    assert keys.paid([claim("15").key, claim("24").key], 25)


def test_an_attempt_that_hangs_keeps_no_other_key() -> None:
    keys = IdempotencyKeys()
    assert keys.take(claim("hangs"), 0) is None
    for number in range(100):
        charge(keys, str(number), number)
    assert not keys.paid([claim("1").key], DAY_US + 1_000)
    assert len(keys) == 1
    refused = keys.take(claim("hangs"), DAY_US + 1_000)
    assert isinstance(refused, Refused)
    assert refused.code is Code.IDEMPOTENCY_IN_FLIGHT


def test_another_request_under_a_key_is_refused_in_flight_and_afterwards() -> None:
    keys = IdempotencyKeys()
    keys.take(claim("k"), 0)
    for _ in range(2):
        refused = keys.take(claim("k", "another"), 1)
        assert isinstance(refused, Refused)
        assert refused.code is Code.IDEMPOTENCY_CONFLICT
        if keys.paid([claim("k").key], 1):
            break
        keys.ended(claim("k").key, whole=True)


def test_what_was_released_is_as_if_never_seen() -> None:
    keys = IdempotencyKeys()
    assert keys.take(claim("k"), 0) is None
    keys.put_back(claim("k").key, None)
    assert len(keys) == 0
    charge(keys, "k", 1)
    before = keys.take(claim("k"), 2)
    assert before == Known("d", 1, paid=True)
    keys.put_back(claim("k").key, before)
    assert keys.paid([claim("k").key], 3)
