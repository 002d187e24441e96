"""The command line's reference page, made from the commands themselves: `python -m control.cli.reference`.

A test compares docs/reference/cli.md with it, so the page cannot say what the commands do not.
"""

import sys
from collections.abc import Iterator

import click

from control.cli import root

WIDTH = 100

INTRODUCTION = """\
# The command line

Made from the commands' own help by `python -m control.cli.reference > docs/reference/cli.md`; a test compares them.

Every command answers people by default and programs with `--json`. A command speaks to the running process over the
operators' socket in the state folder; when none runs, it takes the state's lock and does the same itself.

| exit code | meaning |
|---|---|
| 0 | yes |
| 1 | no: denied, refused, tampered, a check that failed |
| 2 | wrong use |
| 3 | could not run, or could not tell |
| 4 | intact, but incomplete or not anchored as demanded; a revocation that a node has not confirmed |

`exeat run` passes its program's exit code through (128 and the number for a signal, 127 and 126 for a program that
cannot be found or run); before the program starts it uses the codes above.

| variable | meaning |
|---|---|
| `EXEAT_STATE` | the state folder, where `--state` is not given |
| `XDG_STATE_HOME` | its parent, where `EXEAT_STATE` is not set either |
| `EXEAT_TRACEBACK` | `1` shows where a defect happened |
| `EXEAT_RUN` | set by `exeat run`, `exeat relay` and `exeat env` for the program: its run |
| `EXEAT_BASE_URL`, `EXEAT_API_KEY` | set by the same: where a program that ignores proxies calls, and its key there |
"""


def render() -> str:
    """The whole page."""
    return INTRODUCTION + "".join(_sections())


def _sections() -> Iterator[str]:
    names = root.context_settings["help_option_names"]
    context = click.Context(
        root, info_name="exeat", help_option_names=names, max_content_width=WIDTH, terminal_width=WIDTH
    )
    yield _section("exeat", root, context)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        if command is not None:
            yield from _command(f"exeat {name}", command, context, name)


def _command(title: str, command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    context = click.Context(command, parent=parent, info_name=name, max_content_width=WIDTH, terminal_width=WIDTH)
    yield _section(title, command, context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from _command(f"{title} {child}", found, context, child)


def _section(title: str, command: click.Command, context: click.Context) -> str:
    return f"\n## {title}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(render())
