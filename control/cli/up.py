"""`exeat up`: the proxy and its control side, in the foreground."""

import logging
import sys
from pathlib import Path

import click

from control.cli.invocation import Exit, Invocation, Trouble, command_options
from control.cli.policy import describe
from control.cli.status import door_url
from control.codec import to_json
from control.doors import TlsWanted
from control.local import open_local
from control.operations import PolicyRefused
from control.policies import check_policy, provenance_of
from control.serve import DRAIN_SECONDS, Announcement, UpConfig, serve
from control.startup import Address, StartRefused, parse_address
from control.state import StateUnavailable

DEFAULT_LISTEN = Address("127.0.0.1", 8080)


class AddressType(click.ParamType[Address]):
    """An IP address and a port."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return parse_address(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(short_help="Run the proxy and its control side in this terminal.")
@click.option(
    "--listen",
    type=AddressType(),
    multiple=True,
    metavar="ADDR:PORT",
    help="Where agents on this machine connect, in plain text. Port 0 takes a free one. "
    "Default: 127.0.0.1:8080, unless --listen-tls is given.",
)
@click.option(
    "--listen-tls",
    type=AddressType(),
    multiple=True,
    metavar="ADDR:PORT",
    help="Where agents connect through TLS, from other machines too.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="A host name or address under which agents reach --listen-tls; the certificate is for it.",
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Your own certificate for --listen-tls, PEM, the leaf first. Default: one of our authority.",
)
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Its key, mode 0600.")
@click.option(
    "--health",
    type=AddressType(),
    default="127.0.0.1:8081",
    show_default=True,
    metavar="ADDR:PORT",
    help="Where /healthz, /readyz and /metrics are.",
)
@click.option("--policy", type=click.Path(path_type=Path), metavar="PATH", help="Apply this policy first.")
@click.option(
    "--drain",
    type=click.FloatRange(0, 3600),
    default=DRAIN_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long calls in flight may go on after SIGTERM.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that serve agents, all at the same doors. More than one share their counters: --redis.",
)
@click.option(
    "--redis",
    metavar="URL",
    help="Redis or Valkey for counters: redis://HOST:PORT/DB, rediss:// with TLS, unix://PATH. No password in it.",
)
@click.option(
    "--redis-auth",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A file of mode 0600 with user:password for --redis, or the password alone.",
)
@click.option(
    "--redis-ca",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Authorities that the server's certificate is verified against, PEM. Default: the public ones.",
)
@click.option(
    "--unsafe-plaintext-listener",
    is_flag=True,
    help="Listen beyond this machine without TLS: only where the network is yours alone, as in a container.",
)
@command_options
def up(
    invocation: Invocation,
    *,
    listen: tuple[Address, ...],
    listen_tls: tuple[Address, ...],
    names: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    health: Address,
    policy: Path | None,
    drain: float,
    workers: int,
    redis: str | None,
    redis_auth: Path | None,
    redis_ca: Path | None,
    unsafe_plaintext_listener: bool,
) -> None:
    """Run the proxy and its control side in this terminal until SIGTERM or Ctrl-C.

    Then no new call is taken and those in flight may end; a second signal cuts them. Either way all is recorded.

    Agents on other machines need --listen-tls and --name: beyond loopback nothing is taken in plain text.

    The state folder is made when there is none. Without a policy every call is denied.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if policy is not None:
        _apply(invocation, policy)
    config = UpConfig(
        state=invocation.state,
        listen=listen or (() if listen_tls else (DEFAULT_LISTEN,)),
        health=health,
        tls=TlsWanted(listen_tls, names, tls_cert, tls_key),
        unsafe_plaintext_listener=unsafe_plaintext_listener,
        drain_seconds=drain,
    )

    def announce(now: Announcement) -> None:
        invocation.line(to_json(now), welcome(now))
        sys.stdout.flush()

    try:
        if redis is not None:
            # Only here: several processes need what one does not.
            from control.fleet.supervisor import FleetConfig, supervise  # noqa: PLC0415

            report = supervise(config, FleetConfig(workers, redis, redis_auth, redis_ca), announce)
        elif workers > 1:
            raise StartRefused(
                f"{workers} workers have to count together, and nothing is said where",
                "Say --redis redis://127.0.0.1:6379/0; or leave out --workers.",
            )
        else:
            report = serve(config, announce)
    except StartRefused as refused:
        raise Trouble(str(refused), refused.cure) from refused
    except StateUnavailable as unavailable:
        raise Trouble(
            f"not everything could be written at the end: {unavailable.message}", unavailable.fix
        ) from unavailable
    document = {"finished": report.finished, "cut": report.cut}
    invocation.line(to_json(document), f"stopped: {report.finished} calls finished, {report.cut} were cut")


def welcome(now: Announcement) -> str:
    """What a person needs to know once everything listens, and without a policy the way to the first call."""
    lines = [
        f"door    {', '.join(door_url(door) for door in now.listening)}",
        f"health  http://{now.health}",
        f"state   {now.state}{' (new)' if now.created else ''}",
    ]
    if now.workers:
        lines.append(f"workers {now.workers}")
    lines += [f"UNSAFE  {switch}" for switch in now.unsafe]
    if now.policy is not None:
        return "\n".join([*lines, f"policy  {now.policy[:19]}"])
    return "\n".join(
        [
            *lines,
            "policy  none: every call is denied. In another terminal:",
            "  1. exeat init policy.yaml             a policy to start from; put your service into it",
            "  2. exeat policy apply policy.yaml     from now on it decides",
            "  3. exeat secret set example/key       the service's key, from standard input",
            "  4. exeat run -- curl https://...      a call, as the policy's account",
            "  5. exeat calls tail                   what became of it, from the ledger",
        ]
    )


def _apply(invocation: Invocation, path: Path) -> None:
    try:
        checked = check_policy(path)
        with open_local(invocation.state, create=True) as local:
            applied = local.apply_policy(checked.text, provenance_of(path))
    except PolicyRefused as refused:
        rows = [f"{f.file}:{f.line}:{f.column}: {f.message}; {f.fix}" for f in refused.faults]
        raise Trouble("\n".join([str(refused), *rows]), f"exeat check {path}", Exit.NO) from refused
    click.echo(describe(applied), err=True)
