"""`exeat env`: an agent's environment for where `exeat run` cannot be put in front, with a live credential in it."""

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from control.cli.durations import Duration
from control.cli.invocation import Invocation, Trouble, command_options, say
from control.environment import DROPPED, as_shell, proxy_url, variables, write_trust_files
from control.operations import TokenRequest
from control.remote import Remote


@click.command(short_help="Print an agent's environment, with a live credential.")
@click.option("--as", "account", metavar="ACCOUNT", help="Default: the only account of the tenant.")
@click.option("--tenant", metavar="T", help="Default: the only tenant of the policy.")
@click.option("--workflow", default="default", show_default=True, metavar="W", help="What the program is doing.")
@click.option("--ttl", type=Duration(), metavar="5m", help="How long it works. Default and maximum: the policy's.")
@click.option("--remote", "elsewhere", is_flag=True, help="For a program on another machine, through a TLS listener.")
@command_options
def env(
    invocation: Invocation,
    *,
    account: str | None,
    tenant: str | None,
    workflow: str,
    ttl: int | None,
    elsewhere: bool,
) -> None:
    """Print `export` lines (or JSON) that send a program's calls through the proxy, as ACCOUNT.

    The output holds a live credential that is not renewed: whoever reads it is ACCOUNT until it expires. `exeat run`
    hands out none.
    """
    remote = Remote(invocation.state)
    if not remote.answers():
        raise Trouble(f"no process serves {invocation.state}", "Start it: exeat up")
    access = remote.access()
    if access.host is None or access.port is None:
        raise Trouble("the running process has no door for agents yet", "Try again in a moment.")
    host, port, tls = access.server_name or access.host, access.port, access.server_name is not None
    if elsewhere:
        if access.remote is None:
            raise Trouble(
                "the running process has no TLS listener with a name", "exeat up --listen-tls ADDRESS:PORT --name NAME"
            )
        name, _, number = access.remote.rpartition(":")
        host, port, tls = name.strip("[]"), int(number), True
    trust = write_trust_files(_trust_folder(invocation.state), access.authority_pem)
    issued = remote.issue_token(TokenRequest(tenant, account, workflow, None, ttl))
    url = proxy_url(host, port, issued.account, issued.token.reveal().decode("ascii"), tls=tls)
    settings = variables(url, trust) | {"EXEAT_RUN": issued.run}
    until = datetime.fromtimestamp(issued.expires_at, UTC).strftime("%H:%M:%S UTC")
    say(f"run {issued.run}  {issued.tenant}/{issued.account}: a live credential until {until}; do not log it")
    unset = "".join(f"unset {name}\n" for name in DROPPED)
    invocation.answer(dict(settings), (unset + as_shell(settings)).rstrip("\n"))


def _trust_folder(state: Path) -> Path:
    folder = state / "trust"
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise Trouble(
            f"{folder} cannot be made: {os.strerror(error.errno or 0)}", "Run this as the state's owner."
        ) from error
    return folder
