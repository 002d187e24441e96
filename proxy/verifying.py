"""Verifying credentials: what costs a signature check is done one at a time, whoever asks for it.

Anybody can send tokens that never were ours, as fast as his network carries them, and each has to be checked. So a
check holds the one turn of those who have proven nothing until the loop has been round once. Credentials that verified
before are remembered and do not wait.
"""

import asyncio
import time

from credentials.principal import Principal
from proxy.http.errors import RequestRefused
from proxy.turns import NOBODY, Turns
from proxy.world import World
from rules.codes import Code


class Verifier:
    """Says whose a token is."""

    def __init__(self, world: World, turns: Turns, seconds: float) -> None:
        """`seconds`: how long a check may wait for its turn."""
        self._world = world
        self._turns = turns
        self._seconds = seconds

    async def verify(self, token: str) -> Principal:
        """Whom the token names. Raises `CredentialRejected`, and `RequestRefused` where too many are being checked."""
        if self._world.identifier.remembers(token):
            return self._identify(token)
        turn = self._turns.of(NOBODY)
        try:
            async with asyncio.timeout(self._seconds):
                await turn.take()
        except TimeoutError as error:
            raise RequestRefused(Code.OVERLOADED, "too many unknown credentials are being verified") from error
        try:
            return self._identify(token)
        finally:
            # Not given back at once: everybody else whose bytes are here has his visit to the loop in between.
            asyncio.get_running_loop().call_soon(turn.give_back)

    def _identify(self, token: str) -> Principal:
        return self._world.identifier.identify(token, self._world.revocations, time.time())
