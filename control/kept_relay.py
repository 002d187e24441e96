"""A relay whose credential is kept alive, and the environment that leads a program to it: for `run` and for `relay`."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from control.environment import TrustFiles, proxy_url, variables
from control.operations import Access, TokenIssued, Unavailable
from control.relay import DoorAccess, Relay
from control.remote import Remote
from control.renewal import keep_renewed
from credentials.secret import Secret


@asynccontextmanager
async def kept_relay(
    remote: Remote,
    access: Access,
    issued: TokenIssued,
    say: Callable[[str], None],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    password: Secret | None = None,
    listener: socket.socket | None = None,
) -> AsyncIterator[Relay]:
    """A relay listens until the block is left, and each of its connections carries a live credential.

    Raises `Unavailable` where there is no door, and `OSError` where it cannot listen. When renewal is refused for good
    the relay stays: the door's refusals are what its programs have to read.
    """
    if access.host is None or access.port is None:
        raise Unavailable("the running process has no door for agents yet", "Try again in a moment.")
    relay = Relay(DoorAccess(access.host, access.port, issued.account, issued.token), host=host, fixed_port=port)
    if password is not None:
        relay.password = password
    await relay.start(listener)
    renewal = asyncio.create_task(_renew(remote, issued, relay, say))
    try:
        yield relay
    finally:
        renewal.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewal
        await relay.close()
        if relay.counts.refused:
            say(f"run {issued.run}: {relay.counts.refused} wrong passwords or malformed heads")


def run_variables(relay: Relay, issued: TokenIssued, trust: TrustFiles) -> dict[str, str]:
    """What leads a program to the relay, and says which run it belongs to."""
    password = relay.password.reveal().decode("ascii")
    return variables(proxy_url(relay.host, relay.port, issued.account, password), trust) | {"EXEAT_RUN": issued.run}


async def _renew(remote: Remote, issued: TokenIssued, relay: Relay, say: Callable[[str], None]) -> None:
    def replace(renewed: TokenIssued) -> None:
        relay.access.token = renewed.token

    async def renew(held: TokenIssued) -> TokenIssued:
        renewed = await asyncio.to_thread(remote.renew_token, held.token)
        # A restarted process may listen elsewhere.
        with contextlib.suppress(Unavailable):
            access = await asyncio.to_thread(remote.access)
            if access.host is not None and access.port is not None:
                relay.access.host, relay.access.port = access.host, access.port
        return renewed

    ended = await keep_renewed(issued, renew, replace, lambda text: say(f"run {issued.run}: {text}"))
    say(f"run {issued.run}: its credential is renewed no more: {ended.reason}")
