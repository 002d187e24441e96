"""`exeat completion`: the script that makes a shell complete our commands."""

import click
from click.shell_completion import get_completion_class

from control.cli import root
from control.cli.invocation import Exit, Trouble


@click.command(short_help="Print the completion script of your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of your shell.

    For example, for bash: exeat completion bash > ~/.local/share/bash-completion/completions/exeat
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise Trouble(f"no completion for {shell}", code=Exit.WRONG_USE)
    click.echo(kind(root, {}, "exeat", "_EXEAT_COMPLETE").source())
