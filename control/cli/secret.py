"""`exeat secret`: the values that Exeat presents to services. They come in through standard input and never go out."""

import getpass
import sys

import click

from control.cli.connect import operations, the_tenant
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options
from control.codec import to_json
from credentials.secret import MAX_SECRET_BYTES, Secret, SecretRefused


@click.group(short_help="Set, list and remove the secrets of connections.")
def secret() -> None:
    """Set, list and remove the secrets of connections."""


@secret.command("set")
@click.argument("name")
@click.option("--tenant", metavar="T", help="Default: the only tenant of the policy.")
@command_options
def set_(invocation: Invocation, name: str, tenant: str | None) -> None:
    """Seal a secret, read from standard input; one final newline is not part of it.

    For example: op read op://vault/zendesk | exeat secret set zendesk/prod
    """
    value = _from_stdin(name)
    with operations(invocation, create=True) as on:
        done = on.set_secret(the_tenant(on, tenant), name, value)
    text = f"{done.tenant}/{done.name} version {done.version}  thumbprint {done.thumbprint}"
    invocation.answer(to_json(done), "\n".join([text, *(f"warning: {warning}" for warning in done.warnings)]))


@secret.command("list")
@command_options
def list_(invocation: Invocation) -> None:
    """List the secrets' names, versions and thumbprints; never their values."""
    with operations(invocation) as on:
        rows = on.list_secrets()
        missing = on.status().secrets_missing
    shown: list[tuple[str, ...]] = [
        (f"{row.tenant}/{row.name}", f"version {row.version}", row.thumbprint, row.set_at) for row in rows
    ]
    width = ("", "", "")
    shown += [(name, "MISSING", *width[1:]) for name in missing]
    text = columns(shown) or "no secrets"
    invocation.answer({"secrets": to_json(rows), "missing": to_json(missing)}, text)


@secret.command("remove")
@click.argument("name")
@click.option("--tenant", metavar="T", help="Default: the only tenant of the policy.")
@command_options
def remove(invocation: Invocation, name: str, tenant: str | None) -> None:
    """Remove a secret. Calls that need it are denied from then on."""
    with operations(invocation) as on:
        gone = on.remove_secret(the_tenant(on, tenant), name)
    invocation.answer(to_json(gone), f"{gone.tenant}/{gone.name} version {gone.version} removed")


def _from_stdin(name: str) -> Secret:
    raw = _typed(name) if sys.stdin.isatty() else sys.stdin.buffer.read(MAX_SECRET_BYTES + 2)
    # echo and editors add one newline; a secret that ends in one can be given with two.
    for ending in (b"\r\n", b"\n"):
        if raw.endswith(ending):
            raw = raw[: -len(ending)]
            break
    try:
        return Secret(raw)
    except SecretRefused as refused:
        raise Trouble(str(refused), f"Pipe it in: exeat secret set {name} < FILE", Exit.WRONG_USE) from None


def _typed(name: str) -> bytes:
    # Without an echo, so that it is not on the screen or in the scrollback.
    return getpass.getpass(f"{name}: ").encode()
