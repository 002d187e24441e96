"""`exeat run -- CMD`: a program whose every call goes through the proxy, and that holds no credential itself."""

import asyncio
import contextlib
import os
import pwd
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from control.cli.durations import Duration
from control.cli.invocation import Exit, Invocation, Trouble, command_options, say
from control.environment import agent_environment, private_trust_files
from control.isolation.program import UNPRIVILEGED, Identity, IsolationRefused, Plan, Prepared, prepare
from control.kept_relay import kept_relay, run_variables
from control.operations import Act, TokenIssued, TokenRequest
from control.remote import Remote
from control.separation import shares_user
from control.status_views import Access

NOT_FOUND = 127
"""As shells answer for a program that does not exist."""
NOT_EXECUTABLE = 126
"""As shells answer for a file that cannot be run."""
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
"""A terminal sends these to the program as well, so passing them on would deliver them twice."""
SOCKET_VARIABLES = ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "XDG_RUNTIME_DIR")
"""Taken out of an isolated program's environment: they point at sockets that it does not see."""


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
@click.option(
    "--isolate", is_flag=True, help="Give CMD no network but the relay, and as root another uid (default: nobody)."
)
@click.option(
    "--require-separation", is_flag=True, help="Refuse to start CMD where it could read the keys of `exeat up`."
)
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
    isolate: bool,
    require_separation: bool,
    command: tuple[str, ...],
) -> None:
    """Run CMD so that its calls go through the proxy, as ACCOUNT.

    CMD gets the address of a relay on this machine with a password for this run; the credential itself stays in this
    process, which renews it. CMD's exit code becomes this command's; a signal's is 128 and its number.

    A program that runs as the user of `exeat up` can speak to the operators' socket as well; --user takes that away.
    --isolate puts it into network, mount, process and IPC namespaces of its own, and ends with it what it started.
    Where the system does not let it, nothing is started (exit code 3).
    """
    plan = plan_of(invocation.state, user, isolate=isolate)
    if require_separation and not isolate:
        uid = os.geteuid() if plan.become is None else plan.become.uid
        if shares_user(invocation.state, uid):
            raise Trouble(
                "the program would be the user of `exeat up`, and could read its keys and command it",
                "Name another user: exeat run --user NAME (as root); or --isolate.",
            )
    remote = Remote(invocation.state)
    if not remote.answers():
        raise Trouble(f"no process serves {invocation.state}", "Start it: exeat up")
    access = remote.access()
    if access.host is None or access.port is None:
        raise Trouble("the running process has no door for agents yet", "Try again in a moment.")
    issued = remote.issue_token(TokenRequest(tenant, account, workflow, None, ttl))
    code = asyncio.run(_Run(remote, access, issued, plan).command(command))
    raise click.exceptions.Exit(code)


@dataclass(slots=True)
class _Run:
    """One run of one program behind its relay."""

    remote: Remote
    access: Access
    issued: TokenIssued
    plan: Plan

    async def command(self, command: tuple[str, ...]) -> int:
        """The program has ended; its exit code as a shell would give it."""
        if not self.plan.isolate:
            return await self._behind_relay(lambda settings: _spawn(command, settings, self.plan.become))
        async with prepared(self.plan) as inside:

            async def start(settings: dict[str, str]) -> int:
                self._record_isolation()
                return await _wait(await inside.start(command, settings))

            return await self._behind_relay(start, inside.listener)

    def _record_isolation(self) -> None:
        detail = {"run": self.issued.run, "account": self.issued.account, "isolation": str(self.plan)}
        self.remote.record_act(self.issued.tenant, Act.RUN_ISOLATED, detail)
        say(f"isolated: {self.plan}")

    async def _behind_relay(
        self, start: Callable[[dict[str, str]], Awaitable[int]], listener: socket.socket | None = None
    ) -> int:
        """What `start` answers when it is given the program's environment; the relay lives as long as that takes."""
        become = self.plan.become
        async with kept_relay(self.remote, self.access, self.issued, say, listener=listener) as relay:
            with private_trust_files(self.access.authority_pem) as trust:
                settings = run_variables(relay, self.issued, trust)
                say_run(self.issued, relay.port)
                if become is not None:
                    settings |= {"HOME": become.home, "USER": become.name, "LOGNAME": become.name}
                dropped = SOCKET_VARIABLES if self.plan.isolate else ()
                inherited = {name: value for name, value in os.environ.items() if name not in dropped}
                return await start(agent_environment(inherited, settings))


def say_run(issued: TokenIssued, port: int) -> None:
    """The line a person sees when a run begins."""
    say(f"run {issued.run}  {issued.tenant}/{issued.account}  relay 127.0.0.1:{port} (renews its credential)")


def plan_of(state: Path, user: str | None, *, isolate: bool) -> Plan:
    """What the options ask for. Raises `Trouble` where it makes no sense or only root could do it."""
    if user is None and isolate and os.geteuid() == 0:
        user = UNPRIVILEGED
    become = None if user is None else Identity.of(_account(user))
    if isolate and become is not None and become.uid == 0:
        raise Trouble("root is not held by its namespaces", "Name a user without privileges.", Exit.WRONG_USE)
    return Plan(become, (state,), isolate)


@contextlib.asynccontextmanager
async def prepared(plan: Plan, stdout: int | None = None) -> AsyncIterator[Prepared]:
    """The namespaces, until the block is left. Raises `Trouble` where the system does not let them be made."""
    try:
        inside = await prepare(plan, stdout)
    except IsolationRefused as refused:
        raise Trouble(f"not isolated, so not started: {refused}", refused.cure) from refused
    try:
        yield inside
    finally:
        await inside.close()


def _account(user: str) -> pwd.struct_passwd:
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise Trouble(f"this machine has no user {user}", "Make one, or name another.", Exit.WRONG_USE) from None
    if os.geteuid() != 0:
        raise Trouble("only root can run a program as another user", f"sudo exeat run --user {user} ...")
    return found


async def _spawn(command: tuple[str, ...], environment: dict[str, str], become: Identity | None) -> int:
    identity: dict[str, Any] = {}
    if become is not None:
        identity = {"user": become.uid, "group": become.gid, "extra_groups": []}
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment, **identity)
    except FileNotFoundError:
        say(f"{command[0]}: no such program")
        return NOT_FOUND
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        return NOT_EXECUTABLE
    return await _wait(process)


async def _wait(process: asyncio.subprocess.Process) -> int:
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
