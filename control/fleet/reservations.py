"""`FleetReservations`: a worker's limits, counted by the shared store or, while that is away, by control."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

from control.fleet.claim_frames import claims_body, parse_claims, refused_of
from control.fleet.frames import FrameInvalid, Message
from control.fleet.limits_line import LimitsLine
from control.stores.redis.store import RedisReservations
from rules.claims import Claim, LeaseClaim, Refused, ReservationsUnavailable, Reserved, Ticket, Waiting


class FleetReservations:
    """Implements `rules.claims.Reservations`. Belongs to the gate's loop.

    What the shared store or control grants is used only if control's word is still the same when the answer is here.
    """

    def __init__(self, shared: RedisReservations, line: LimitsLine) -> None:
        self._shared = shared
        self._line = line
        self._held: dict[str, tuple[bool, Reserved]] = {}
        """Calls in flight of which control has to know when it counts: whether control granted it."""
        self._asking: set[str] = set()
        """Asked of control, and not in `_held` yet: control may have granted them already."""
        self._loop = asyncio.get_running_loop()
        line.holds, line.asking = self._holds, lambda: list(self._asking)
        line.ended = self._ended_word

    async def reserve(self, call: str, claims: tuple[Claim, ...]) -> Reserved | Refused:
        """All claims are taken, or none. Raises `ReservationsUnavailable`; nothing stays taken then."""
        answer = await self._reserve(call, claims, None)
        if isinstance(answer, Waiting):
            raise ReservationsUnavailable("a call that does not wait was told to")
        return answer

    async def reserve_or_wait(
        self, call: str, claims: tuple[Claim, ...], ticket: Ticket
    ) -> Reserved | Refused | Waiting:
        """As `reserve`; but where nothing is missing than slots that may be waited for, the call waits.

        Nobody waits while control grants.
        """
        return await self._reserve(call, claims, ticket)

    async def turn(self, ticket: Ticket, seconds: float) -> None:
        """See `Reservations.turn`."""
        await self._shared.turn(ticket, seconds)

    def leave(self, ticket: Ticket) -> None:
        """See `Reservations.leave`."""
        self._shared.leave(ticket)

    async def _reserve(
        self, call: str, claims: tuple[Claim, ...], ticket: Ticket | None
    ) -> Reserved | Refused | Waiting:
        tenant = claims[0].key[0] if claims else ""
        word = self._line.word
        if tenant in word.away:
            epoch = word.away[tenant]
            if epoch is None or not word.holds:
                raise ReservationsUnavailable(f"the shared limits of {tenant} are away, and nobody grants a share yet")
            return await self._local(tenant, epoch, f"{call}#{secrets.token_hex(6)}", claims)
        if not word.holds:
            raise ReservationsUnavailable("control does not say whose counters are in force")
        if ticket is None:
            answer: Reserved | Refused | Waiting = await self._shared.reserve(call, claims)
        else:
            answer = await self._shared.reserve_or_wait(call, claims, ticket)
        if not isinstance(answer, Reserved):
            return answer
        word = self._line.word
        if tenant in word.away or not word.holds:
            self._shared.release(answer)
            raise ReservationsUnavailable("the shared counters are not in force any more")
        if any(isinstance(claim, LeaseClaim) for claim in answer.claims):
            self._held[answer.id] = False, answer
        return answer

    def release(self, reserved: Reserved) -> None:
        """Leases and amounts are given back: the call was never sent. Rate tokens stay spent."""
        if not self._ended(reserved, "release", {}):
            self._shared.release(reserved)

    def settle(self, reserved: Reserved, spent: Mapping[str, int], *, refused: bool = False) -> None:
        """Leases are given back and each budget holds what its meter really counted; else its maximum."""
        if not self._ended(reserved, "refuse" if refused else "settle", spent):
            self._shared.settle(reserved, spent, refused=refused)

    def pause(self, key: tuple[str, ...], seconds: float) -> None:
        """Claims of this key are refused for so long, by every worker; the longest that was asked for counts."""
        if self._line.word.away.get(key[0]) is None:
            self._shared.pause(key, seconds)
        else:
            self._line.post(Message("pause", {"key": list(key), "seconds": seconds}))

    def _ended(self, reserved: Reserved, how: str, spent: Mapping[str, int]) -> bool:
        """Control hears of it where it counts it; true where nobody else has to."""
        local, known = self._held.pop(reserved.id, (False, None))
        # The shared store's are taken out first and the word is read then: what was reported is said to have ended.
        if known is not None and (local or reserved.claims[0].key[0] in self._line.word.away):
            amounts = {meter: amount for meter, amount in spent.items() if type(amount) is int}
            self._line.post(Message("end", {"name": reserved.id, "how": how, "amounts": amounts}))
        return local

    async def _local(self, tenant: str, epoch: int, name: str, claims: tuple[Claim, ...]) -> Reserved | Refused:
        taken: Reserved | Refused | None = None
        self._asking.add(name)
        try:
            taken = _verdict(name, claims, await self._line.ask(tenant, epoch, name, claims))
            word = self._line.word
            if word.away.get(tenant) != epoch or not word.holds:
                taken = None
                raise ReservationsUnavailable("what control granted is not in force any more")
            if isinstance(taken, Reserved):
                self._held[name] = True, taken
        finally:
            if taken is None:  # it may have been taken, or be taken later: this comes behind it
                self._line.post(Message("end", {"name": name, "how": "release", "amounts": {}}))
            self._asking.discard(name)
        return taken

    def _ended_word(self, tenant: str) -> None:
        """The channel's thread."""
        self._loop.call_soon_threadsafe(self._adopt, tenant)

    def _adopt(self, tenant: str) -> None:
        """What control granted is counted by the shared store from now on: slots are held there, ends are told it."""
        for name, (local, reserved) in tuple(self._held.items()):
            if local and reserved.claims[0].key[0] == tenant:
                self._shared.adopt(reserved)
                self._held[name] = False, reserved

    def _holds(self) -> list[list[Any]]:
        """The channel's thread."""
        return [[name, local, claims_body(reserved.claims)] for name, (local, reserved) in list(self._held.items())]


def _verdict(name: str, claims: tuple[Claim, ...], body: dict[str, Any]) -> Reserved | Refused:
    """Raises `ReservationsUnavailable`."""
    try:
        if "refused" in body:
            return refused_of(body["refused"], claims)
        if "claims" in body:
            return Reserved(name, parse_claims(body["claims"]))
    except (FrameInvalid, ValueError, TypeError, IndexError) as error:
        raise ReservationsUnavailable(f"control's answer is none: {error}") from error
    raise ReservationsUnavailable(f"control does not grant it: {body.get('unavailable')}")
