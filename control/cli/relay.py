"""`exeat relay`: the relay of `exeat run` as a process of its own, beside programs that somebody else starts."""

import asyncio
import os
import re
import signal
import tempfile
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import click

from control.cli.durations import Duration
from control.cli.invocation import Exit, Invocation, Trouble, command_options, say
from control.codec import Json
from control.environment import DROPPED, as_dotenv, as_shell, foreign_trust_file, write_trust_files
from control.kept_relay import kept_relay, run_variables
from control.operations import TokenIssued, TokenRequest
from control.relay import Relay
from control.remote import Remote
from control.status_views import Access
from credentials.secret import Secret

ENDS = (signal.SIGTERM, signal.SIGINT)
# What needs no encoding in a URL and no quotes in any shell or dotenv file (RFC 3986 section 2.3, unreserved).
_PASSWORD = re.compile(rb"[A-Za-z0-9._~-]{32,256}")


class Address(click.ParamType[tuple[str, int]]):
    """`HOST:PORT` on loopback."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, _, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            address, number = ip_address(host), int(port)
        except ValueError:
            self.fail(f"{value} is no ADDRESS:PORT", param, ctx)
        if not address.is_loopback:
            self.fail(f"{host} is not loopback, and what is sent to a relay is not encrypted", param, ctx)
        if not 0 <= number <= 65_535:
            self.fail(f"{port} is no port", param, ctx)
        return host, number


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one relay does."""

    address: tuple[str, int]
    env_file: Path
    form: str
    with_group: bool
    password: Secret | None
    grace_seconds: int


@click.command(short_help="Run a relay beside programs that are started elsewhere.")
@click.option("--as", "account", metavar="ACCOUNT", help="Default: the only account of the tenant.")
@click.option("--tenant", metavar="T", help="Default: the only tenant of the policy.")
@click.option("--workflow", default="default", show_default=True, metavar="W", help="What the programs are doing.")
@click.option(
    "--ttl", type=Duration(), metavar="5m", help="One credential's lifetime. Default and maximum: the policy's."
)
@click.option(
    "--listen", type=Address(), default="127.0.0.1:9080", show_default=True, metavar="IP:PORT", help="On loopback."
)
@click.option(
    "--env-file", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE",
    help="Written when the relay is ready, removed when it ends; certificates are written beside it.",
)  # fmt: skip
@click.option("--format", "form", type=click.Choice(["shell", "dotenv"]), default="shell", show_default=True,
              help="shell: for `. FILE`; dotenv: NAME=value lines.")  # fmt: skip
@click.option("--group-readable", "with_group", is_flag=True, help="FILE can be read by the group of its folder.")
@click.option(
    "--password-file", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="The programs' password. Default: a random one for the life of this process.",
)  # fmt: skip
@click.option("--grace", type=Duration(), default="10s", show_default=True, metavar="10s",
              help="How long open connections may go on after a signal to end.")  # fmt: skip
@command_options
def relay(
    invocation: Invocation,
    *,
    account: str | None,
    tenant: str | None,
    workflow: str,
    ttl: int | None,
    listen: tuple[str, int],
    env_file: Path,
    form: str,
    with_group: bool,
    password_file: Path | None,
    grace: int,
) -> None:
    """Run a relay until a signal ends it. Programs that read FILE have their calls go through the proxy, as ACCOUNT.

    All of them are one run. The credential stays in this process, which renews it. When it is revoked the relay stays,
    and its programs read the refusals; ending it and starting it again makes a new run.
    """
    password = None if password_file is None else _read_password(password_file)
    if foreign := foreign_trust_file(env_file.absolute().parent):
        raise Trouble(
            f"{foreign} is there and no relay wrote it; a relay's certificates would replace it",
            "Name a file in a folder of the relay's own: --env-file FOLDER/env",
            Exit.WRONG_USE,
        )
    remote = Remote(invocation.state)
    if not remote.answers():
        raise Trouble(f"no process serves {invocation.state}", "Start it: exeat up")
    access = remote.access()
    issued = remote.issue_token(TokenRequest(tenant, account, workflow, None, ttl))
    plan = _Plan(listen, env_file.absolute(), form, with_group, password, grace)
    asyncio.run(_serve(invocation, remote, access, issued, plan))


async def _serve(invocation: Invocation, remote: Remote, access: Access, issued: TokenIssued, plan: _Plan) -> None:
    over = asyncio.Event()
    for number in ENDS:
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    host, port = plan.address
    try:
        async with kept_relay(remote, access, issued, say, host=host, port=port, password=plan.password) as opened:
            _publish(plan, access, issued, opened)
            try:
                where = f"{host}:{opened.port}"
                ready: dict[str, Json] = {"run": issued.run, "tenant": issued.tenant, "account": issued.account}
                invocation.line(
                    ready | {"relay": where, "env_file": str(plan.env_file)},
                    f"ready  run {issued.run}  {issued.tenant}/{issued.account}  relay {where}  {plan.env_file}",
                )
                await over.wait()
            finally:
                plan.env_file.unlink(missing_ok=True)
            say(f"run {issued.run}: ending; open connections have {plan.grace_seconds} s")
            await opened.drain(plan.grace_seconds)
    except OSError as error:
        cure = "Name another: --listen IP:PORT"
        raise Trouble(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}", cure) from error


def _publish(plan: _Plan, access: Access, issued: TokenIssued, opened: Relay) -> None:
    """The file and the certificates are there: programs may start."""
    try:
        settings = run_variables(opened, issued, write_trust_files(plan.env_file.parent, access.authority_pem))
        unset = "".join(f"unset {name}\n" for name in DROPPED)
        text = as_dotenv(settings) if plan.form == "dotenv" else unset + as_shell(settings)
        _write_private(plan.env_file, text, with_group=plan.with_group)
    except OSError as error:
        cure = "Name a file in a folder that is there and that this user may write."
        raise Trouble(f"{plan.env_file} cannot be written: {error.strerror}", cure) from error


def _read_password(path: Path) -> Secret:
    try:
        text = path.read_bytes().removesuffix(b"\n")
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}", code=Exit.WRONG_USE) from error
    if _PASSWORD.fullmatch(text) is None:
        raise Trouble(
            f"{path} holds no password for a relay",
            "It has to be 32 to 256 letters, digits, dots, dashes, underscores or tildes: openssl rand -hex 32",
            Exit.WRONG_USE,
        )
    return Secret(text)


def _write_private(path: Path, text: str, *, with_group: bool) -> None:
    """The file is there as a whole, for its owner alone (or for the group of its folder)."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            if with_group:
                os.fchown(out.fileno(), -1, path.parent.stat().st_gid)
                os.fchmod(out.fileno(), 0o640)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
