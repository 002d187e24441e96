"""The command line: one file per group of commands, imported only when its command is used."""

import importlib
import json
import os
import sys
from dataclasses import dataclass

import click

from control.cli.invocation import Exit, Trouble
from control.operations import OperationError, Refused, WrongUse


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives, and its line in `--help`, so that help need not import it."""

    name: str
    module: str
    attribute: str
    help: str


COMMANDS: tuple[Entry, ...] = (
    Entry("up", "up", "up", "Run the proxy and its control side in this terminal."),
    Entry("demo", "demo", "demo", "Show the whole product in a minute, on loopback."),
    Entry("run", "run", "run", "Run a program whose calls go through the proxy."),
    Entry("relay", "relay", "relay", "Run a relay beside programs that are started elsewhere."),
    Entry("env", "env", "env", "Print an agent's environment, with a live credential."),
    Entry("init", "init", "init", "Write a first policy to start from."),
    Entry("check", "policy", "check", "Check a policy without applying it."),
    Entry("test", "policy_tests", "test", "Try the tests that stand in a policy."),
    Entry("policy", "policy", "policy", "Compare, apply and explain policies."),
    Entry("replay", "replay", "replay_command", "Decide recorded calls again, under a policy that is not applied yet."),
    Entry("suggest", "suggest", "suggest_command", "Write the rules that an account's calls would have needed."),
    Entry("inputs", "inputs", "inputs", "Show and erase what calls were decided on."),
    Entry("actions", "actions", "actions", "List everything an account can do, and who answers for it."),
    Entry("blast-radius", "blast_radius", "blast_radius", "Compute the most an account can do in a day."),
    Entry("catalogue", "catalogue", "catalogue", "List services and their tools, and import new ones."),
    Entry("prices", "prices", "prices", "List price books, and what models cost."),
    Entry("secret", "secret", "secret", "Set, list and remove the secrets of connections."),
    Entry("token", "token", "token", "Issue, renew and inspect agents' credentials."),
    Entry("revoke", "revoke", "revoke", "Stop a credential, an account, a tenant or everything, now."),
    Entry("resume", "resume", "resume", "Let the calls of a suspended account out again."),
    Entry("restore", "revoke", "restore", "Let a revoked target be issued new credentials."),
    Entry("ca", "ca", "ca", "Show, export and replace the authority that agents trust."),
    Entry("status", "status", "status", "Say what is installed, active and in flight."),
    Entry("workers", "workers", "workers", "Show and replace the processes that serve agents."),
    Entry("limits", "limits", "limits", "Show what is used of the limits now."),
    Entry("spend", "spend", "spend", "Show what was spent, per outcome, run and tool, and what is left."),
    Entry("outcome", "spend", "outcome", "Say that a run has achieved what its workflow is for."),
    Entry("alerts", "alerts", "alerts", "Show alerts, and try their destinations."),
    Entry("calls", "calls", "calls", "Follow and explain the calls in the ledger."),
    Entry("ledger", "ledger", "ledger", "Verify and read a ledger, offline."),
    Entry("doctor", "doctor", "doctor", "Find what is wrong and say how to mend it."),
    Entry("completion", "completion", "completion", "Print the completion script of your shell."),
)
"""In the order of `exeat --help`: what a newcomer needs first. A test compares each line with the command's own."""


class LazyGroup(click.Group):
    """Commands by table; a command's module is imported when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in COMMANDS:
            if entry.name == cmd_name:
                module = importlib.import_module(f"control.cli.{entry.module}")
                command = getattr(module, entry.attribute)
                if not isinstance(command, click.Command):
                    raise TypeError(f"{entry.module}.{entry.attribute} is no command")
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.help) for entry in COMMANDS])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="exeat", prog_name="exeat", message="%(prog)s %(version)s")
def root() -> None:
    """Exeat: an inline security proxy for agent tool calls.

    Exit codes: 0 yes; 1 no (denied, tampered, failed); 2 wrong use; 3 could not run or could not tell;
    4 intact but incomplete. `run` exits with its program's code.
    """


def main() -> None:
    """The process ends with one of the exit codes of `Exit`."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """The command has run; its exit code comes back. Nothing is raised."""
    try:
        # Without standalone mode click returns a command's value, and the code of an `Exit` it raised.
        outcome = root.main(args=arguments, prog_name="exeat", standalone_mode=False)
    except Trouble as trouble:
        _tell(arguments, trouble.message, trouble.cure)
        return trouble.code
    except OperationError as error:
        _tell(arguments, str(error), error.cure)
        return _code_of(error)
    except click.UsageError as error:
        if "--json" in arguments:
            _tell(arguments, error.format_message(), "See --help.")
        else:
            error.show()
        return Exit.WRONG_USE
    except click.ClickException as error:
        _tell(arguments, error.format_message(), "")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # `exeat calls tail | head`: the reader has enough. Python must not complain about it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.YES
    except Exception as error:
        # Blanket, because Python would exit with 1, and 1 is an answer: "no".
        if os.environ.get("EXEAT_TRACEBACK"):
            raise
        _tell(
            arguments, f"{type(error).__name__}: {error}", "A defect. EXEAT_TRACEBACK=1 shows where; please report it."
        )
        return Exit.COULD_NOT
    return outcome if isinstance(outcome, int) else Exit.YES


def _code_of(error: OperationError) -> Exit:
    if isinstance(error, Refused):
        return Exit.NO
    return Exit.WRONG_USE if isinstance(error, WrongUse) else Exit.COULD_NOT


def _tell(arguments: list[str], message: str, cure: str) -> None:
    # What follows `--` belongs to the program of `run`.
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" in own:
        click.echo(json.dumps({"error": {"message": message, "cure": cure}}, ensure_ascii=False))
        return
    click.echo(f"exeat: {message}", err=True)
    if cure:
        click.echo(f"  {cure}", err=True)
