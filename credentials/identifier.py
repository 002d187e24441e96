"""Step (2), identify: a token becomes a principal, on every request."""

from threading import Lock
from typing import Final

from credentials.principal import Principal
from credentials.revocation import Revocations
from credentials.tokens import CredentialRejected, TokenVerifier

DEFAULT_CACHE_SIZE: Final = 10_000
"""About 1 kB each. A credential that falls out costs one signature check (0.1 ms) at its next request."""


class Identifier:
    """Knows who presents a token; remembers tokens that verified, by all of their bytes.

    What is remembered is only that signature and claims are right. Expiry and revocation are judged anew each time.
    """

    def __init__(self, verifier: TokenVerifier, cache_size: int = DEFAULT_CACHE_SIZE) -> None:
        self._verifier = verifier
        self._cache_size = cache_size
        self._verified: dict[str, Principal] = {}
        self._lock = Lock()  # for the miss only: looking up is one atomic operation

    def identify(self, token: str, revocations: Revocations, now: float) -> Principal:
        """Who presents `token` at `now` (Unix seconds, UTC) under the newest `revocations`.

        Raises `CredentialRejected`; the caller answers with its code and records it.
        """
        principal = self._verified.get(token)
        if principal is None:
            principal = self._verifier.verify(token, now)
            self._remember(token, principal)
        elif now >= principal.expires_at:
            self._forget(token)
            raise CredentialRejected("credential_expired", "the token has expired", principal)
        if principal.epoch > revocations.epoch:
            # Signed by us under an order that we do not know: our revocations were lost or rolled back. A credential
            # must not outlive its revocation by that.
            raise CredentialRejected("credential_invalid", "the token is newer than the known revocations", principal)
        order = revocations.check(principal)
        if order is not None:
            raise CredentialRejected("credential_revoked", f"revoked at epoch {order.epoch}", principal)
        return principal

    def remembers(self, token: str) -> bool:
        """True if `identify` would cost no signature check."""
        return token in self._verified

    def _remember(self, token: str, principal: Principal) -> None:
        # Only what verified comes here, so nobody without valid tokens can push others out.
        with self._lock:
            if len(self._verified) >= self._cache_size:
                self._verified.pop(next(iter(self._verified)), None)
            self._verified[token] = principal

    def _forget(self, token: str) -> None:
        with self._lock:
            self._verified.pop(token, None)

    def __len__(self) -> int:
        """How many verified tokens are remembered."""
        return len(self._verified)

    def __repr__(self) -> str:
        return f"Identifier({len(self._verified)} remembered)"
