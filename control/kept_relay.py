"""A relay whose credential is kept alive, and the environment that leads a program to it: for `run` and for `relay`."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from control.environment import TrustFiles, proxy_url, variables, write_trust_files
from control.operations import TokenIssued, Unavailable
from control.relay import DoorAccess, Relay
from control.remote import Remote
from control.renewal import keep_renewed
from control.status_views import Access
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
    door = DoorAccess(access.host, access.port, issued.account, issued.token, door_context(access), access.server_name)
    relay = Relay(door, host=host, fixed_port=port)
    if password is not None:
        relay.password = password
    await relay.start(listener)
    renewal = asyncio.create_task(_renew(remote, access, issued, relay, say))
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
    relay.trust_folder = trust.combined.parent
    password = relay.password.reveal().decode("ascii")
    return variables(proxy_url(relay.host, relay.port, issued.account, password), trust) | {"EXEAT_RUN": issued.run}


def door_context(access: Access) -> ssl.SSLContext | None:
    """Verifies a TLS door against nothing but what the running process says of itself; None for a plain door."""
    if access.server_name is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # An operator's certificate may come without its root: the very certificate is then what is trusted.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=access.door_pem)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _renew(remote: Remote, access: Access, issued: TokenIssued, relay: Relay, say: Callable[[str], None]) -> None:
    def replace(renewed: TokenIssued) -> None:
        relay.access.token = renewed.token

    async def renew(held: TokenIssued) -> TokenIssued:
        renewed = await asyncio.to_thread(remote.renew_token, held.token)
        # A restarted process may listen elsewhere, and one authority may follow another.
        with contextlib.suppress(Unavailable):
            follow(await asyncio.to_thread(remote.access))
        return renewed

    def follow(now: Access) -> None:
        nonlocal access
        if now.host is None or now.port is None or now == access:
            return
        door = relay.access
        door.host, door.port, door.tls, door.server_name = now.host, now.port, door_context(now), now.server_name
        if now.authority_pem != access.authority_pem and relay.trust_folder is not None:
            try:
                write_trust_files(relay.trust_folder, now.authority_pem)
            except OSError as error:
                say(f"run {issued.run}: the certificates could not be written anew: {error.strerror}")
        access = now

    ended = await keep_renewed(issued, renew, replace, lambda text: say(f"run {issued.run}: {text}"))
    say(f"run {issued.run}: its credential is renewed no more: {ended.reason}")
