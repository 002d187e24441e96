"""Claims survive their way between worker and control, and nothing else does."""

import json

import pytest

from control.fleet.claim_frames import claims_body, parse_claims, refused_body, refused_of
from control.fleet.frames import FrameInvalid
from rules.claims import Claim, LeaseClaim, OnceClaim, PauseClaim, Queue, RateClaim, Refused, SpendClaim
from rules.codes import Code

CLAIMS: tuple[Claim, ...] = (
    RateClaim(("acme", "agent", "rate", "saas", "second"), 1_000, 5, "5 per second"),
    LeaseClaim(("acme", "agent", "concurrency"), 3),
    SpendClaim(("acme", "agent", "USD", "day"), "2026-11-26", 5_000_000, 250_000, "USD", 4_000_000_000),
    PauseClaim(("acme", "connection", "saas")),
    OnceClaim(("acme", "agent", "once", "saas", "2026-11-26", "k"), "digest"),
)


def test_all_kinds_of_claims_come_back_as_they_were() -> None:
    assert parse_claims(json.loads(json.dumps(claims_body(CLAIMS)))) == CLAIMS


def test_who_may_wait_is_left_out_for_nobody_does_there() -> None:
    (sent,) = parse_claims(json.loads(json.dumps(claims_body((LeaseClaim(("acme",), 3, Queue(5, 5)),)))))
    assert sent == LeaseClaim(("acme",), 3)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        [[]],
        [["lease"]],
        [["slot", ["acme"], 1]],
        [["lease", "acme", 1]],
        [["lease", ["acme", 1], 1]],
        [["lease", ["acme"], True]],
        [["lease", ["acme"], "1"]],
        [["lease", ["acme"], 1, 2]],
        [[["lease"], ["acme"], 1]],
        [["spend", ["acme"], "w", 1, 1.5, "USD", 0, "price"]],
    ],
)
def test_what_is_no_claim_is_refused(body: object) -> None:
    with pytest.raises(FrameInvalid):
        parse_claims(body)


def test_a_refusal_names_its_claim_and_its_wait() -> None:
    refused = Refused(CLAIMS[2], Code.SPEND_CAP_REACHED, "the cap is reached", 7)
    assert refused_of(json.loads(json.dumps(refused_body(refused, 2))), CLAIMS) == refused
