"""`exeat run -- CMD`: a program whose every call goes through the proxy, and that holds no credential itself."""

import asyncio
import contextlib
import os
import pwd
import signal
from typing import Any

import click

from control.cli.durations import Duration
from control.cli.invocation import Exit, Invocation, Trouble, command_options, say
from control.environment import agent_environment, private_trust_files
from control.kept_relay import kept_relay, run_variables
from control.operations import Access, TokenIssued, TokenRequest
from control.remote import Remote

NOT_FOUND = 127
"""As shells answer for a program that does not exist."""
NOT_EXECUTABLE = 126
"""As shells answer for a file that cannot be run."""
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
"""A terminal sends these to the program as well, so passing them on would deliver them twice."""


@click.command(
    short_help="Run a program whose calls go through the proxy.", context_settings={"allow_interspersed_args": False}
)
@click.option("--as", "account", metavar="ACCOUNT", help="Default: the only account of the tenant.")
@click.option("--tenant", metavar="T", help="Default: the only tenant of the policy.")
@click.option("--workflow", default="default", show_default=True, metavar="W", help="What the program is doing.")
@click.option(
    "--ttl", type=Duration(), metavar="5m", help="One credential's lifetime. Default and maximum: the policy's."
)
@click.option("--user", metavar="USER", help="Run CMD as this user of the machine (as root only).")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARGS]...")
@command_options
def run(
    invocation: Invocation,
    *,
    account: str | None,
    tenant: str | None,
    workflow: str,
    ttl: int | None,
    user: str | None,
    command: tuple[str, ...],
) -> None:
    """Run CMD so that its calls go through the proxy, as ACCOUNT.

    CMD gets the address of a relay on this machine with a password for this run; the credential itself stays in this
    process, which renews it. CMD's exit code becomes this command's; a signal's is 128 and its number.

    A program that runs as the user of `exeat up` can speak to the operators' socket as well; --user takes that away.
    """
    become = None if user is None else _account(user)
    remote = Remote(invocation.state)
    if not remote.answers():
        raise Trouble(f"no process serves {invocation.state}", "Start it: exeat up")
    access = remote.access()
    if access.host is None or access.port is None:
        raise Trouble("the running process has no door for agents yet", "Try again in a moment.")
    issued = remote.issue_token(TokenRequest(tenant, account, workflow, None, ttl))
    code = asyncio.run(_command(remote, access, issued, command, become))
    raise click.exceptions.Exit(code)


async def _command(
    remote: Remote, access: Access, issued: TokenIssued, command: tuple[str, ...], become: pwd.struct_passwd | None
) -> int:
    """The program has ended; its exit code as a shell would give it."""
    async with kept_relay(remote, access, issued, say) as relay:
        with private_trust_files(access.authority_pem) as trust:
            settings = run_variables(relay, issued, trust)
            say_run(issued, relay.port)
            if become is not None:
                settings |= {"HOME": become.pw_dir, "USER": become.pw_name, "LOGNAME": become.pw_name}
            return await _spawn(command, agent_environment(os.environ, settings), become)


def say_run(issued: TokenIssued, port: int) -> None:
    """The line a person sees when a run begins."""
    say(f"run {issued.run}  {issued.tenant}/{issued.account}  relay 127.0.0.1:{port} (renews its credential)")


def _account(user: str) -> pwd.struct_passwd:
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise Trouble(f"this machine has no user {user}", "Make one, or name another.", Exit.WRONG_USE) from None
    if os.geteuid() != 0:
        raise Trouble("only root can run a program as another user", f"sudo exeat run --user {user} ...")
    return found


async def _spawn(command: tuple[str, ...], environment: dict[str, str], become: pwd.struct_passwd | None) -> int:
    identity: dict[str, Any] = {}
    if become is not None:
        identity = {"user": become.pw_uid, "group": become.pw_gid, "extra_groups": []}
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment, **identity)
    except FileNotFoundError:
        say(f"{command[0]}: no such program")
        return NOT_FOUND
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        return NOT_EXECUTABLE
    loop = asyncio.get_running_loop()

    def forward(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    for number in FORWARDED:
        loop.add_signal_handler(number, forward, number)
    for number in FROM_THE_TERMINAL:
        loop.add_signal_handler(number, _terminal_signal, number, forward)
    code = await process.wait()
    return 128 - code if code < 0 else code


def _terminal_signal(number: signal.Signals, forward: "object") -> None:
    """Passed on only when the terminal has not delivered it itself."""
    if not _in_the_foreground() and callable(forward):
        forward(number)


def _in_the_foreground() -> bool:
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
