"""`exeat doctor client`: whether a client obeys the variables of a run, and what it needs where it does not."""

import click

from control.cli.findings import describe
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options
from control.client_doctor import CLIENTS, CannotRun, examine_clients, examine_command, find
from control.codec import to_json
from control.doctor import Finding, Verdict


@click.command(short_help="Try a client and say what it needs.", context_settings={"allow_interspersed_args": False})
@click.option("--list", "listing", is_flag=True, help="Say which of the known clients are on this machine.")
@click.argument("what", nargs=-1, type=click.UNPROCESSED, metavar="[NAME]... | -- CMD [ARGS]...")
@command_options
def client(invocation: Invocation, *, listing: bool, what: tuple[str, ...]) -> None:
    """Try clients at a rehearsal of `exeat run`: the same variables, a door that answers everything and calls nobody.

    It says whether a client ignores the proxy, does not trust the certificates, pins others, or is too old, and the
    cure. NAMEs are those of --list; whatever else is named is a program with its arguments. Neither a process nor a
    policy is needed.

    A program that ignores the proxy does what it does without Exeat: its calls are real.

    Exit code 1 when a client needs something, 3 when one cannot be run.
    """
    known = {one.name: one for one in CLIENTS}
    if listing:
        here = {one.name: find(one) for one in CLIENTS}
        rows: list[tuple[str, ...]] = [(name, path or "not here") for name, path in here.items()]
        invocation.answer({"clients": dict(here)}, columns(rows))
        return
    if not what:
        raise Trouble("no client is named", f"Name some ({', '.join(known)}), or: -- CMD", Exit.WRONG_USE)
    findings: tuple[Finding, ...]
    try:
        if all(name in known for name in what):
            findings = examine_clients([known[name] for name in what])
        else:
            findings = (examine_command(what[0], what),)
    except CannotRun as error:
        raise Trouble(str(error), "See: exeat doctor client --list") from error
    invocation.answer({"findings": to_json(findings)}, describe(findings))
    if any(finding.verdict is Verdict.BAD for finding in findings):
        invocation.end(Exit.NO)
