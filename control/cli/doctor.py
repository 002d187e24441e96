"""`exeat doctor`: what is wrong here, and how to mend it."""

import click

from control.cli.doctor_client import client
from control.cli.doctor_egress import egress
from control.cli.findings import describe
from control.cli.invocation import Exit, Invocation, command_options
from control.codec import to_json
from control.doctor import Verdict, examine


@click.group(short_help="Find what is wrong and say how to mend it.", invoke_without_command=True)
@command_options
def doctor(invocation: Invocation) -> None:
    """Find what is wrong and say how to mend it. Exit code 1 when anything failed.

    Started by `exeat run -- exeat doctor` it looks at the agent's side: variables, certificates, and a real request.
    The commands below look closer at one thing.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    findings = examine(invocation.state)
    invocation.answer({"findings": to_json(findings)}, describe(findings))
    if any(finding.verdict is Verdict.BAD for finding in findings):
        invocation.end(Exit.NO)


doctor.add_command(client)
doctor.add_command(egress)
