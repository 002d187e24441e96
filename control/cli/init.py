"""`exeat init`: a first policy to start from, valid as it is."""

from pathlib import Path

import click

from control.cli.invocation import Exit, Invocation, Trouble, command_options
from credentials.names import is_name

TEMPLATE = """\
# A policy of Exeat. Check it with `exeat check`, apply it with `exeat policy apply`.
# What no rule allows is denied; a deny rule wins over every allow rule.
exeat: 1
tenant: {tenant}
credentials: {{ttl: 5m, max_ttl: 1h}}

connections:
  # Which service, and which secret Exeat presents there (exeat secret set example/key). The agent never sees it.
  example: {{host: api.example.com, secret: example/key, present: bearer}}

accounts:
  my-agent:
    # People who answer for this agent: for what it does, for its running, for its risk.
    owners: {{accountable: you@example.com, system: you@example.com, risk: you@example.com}}
    stage: autonomous
    limits:
      concurrency: 4
      rate: [{{connection: example, max: 10, per: second, burst: 20}}]
    rules:
      - {{id: read-items, allow: {{connection: example, methods: [GET], path: "/v1/items/{{id}}"}}}}
      - {{id: never-delete, deny: {{connection: "*", methods: [DELETE], path: "/**"}}}}
"""


@click.command(short_help="Write a first policy to start from.")
@click.argument("path", type=click.Path(path_type=Path), default=Path("policy.yaml"))
@click.option("--tenant", default="acme", show_default=True, metavar="T", help="Your company or team.")
@command_options
def init(invocation: Invocation, path: Path, *, tenant: str) -> None:
    """Write a first policy to PATH: a .yaml file, or a folder that gets one. A file that exists is left alone."""
    if not is_name(tenant):
        raise Trouble(f"{tenant!r} is no tenant's name", "Use letters, digits and ._-", Exit.WRONG_USE)
    file = path if path.suffix in (".yaml", ".yml") else path / f"{tenant}.yaml"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            out.write(TEMPLATE.format(tenant=tenant))
    except FileExistsError:
        cure = "Edit it, or choose another name: exeat init OTHER.yaml"
        raise Trouble(f"{file} exists", cure, Exit.NO) from None
    except OSError as error:
        raise Trouble(f"{file} cannot be written: {error.strerror}", "Choose another folder.") from error
    text = f"wrote {file}; edit it, then: exeat check {path} && exeat policy apply {path}"
    invocation.answer({"written": str(file)}, text)
