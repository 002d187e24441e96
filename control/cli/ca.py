"""`exeat ca`: the authority that agents trust, and how another one takes its place without a failed call."""

import click

from control.authority_views import AuthoritiesShown, AuthorityShown, RotationAsked, Step
from control.cli.connect import operations
from control.cli.durations import Duration
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options
from control.codec import to_json

CONSTRAIN = click.option(
    "--constrain", is_flag=True, help="The new one may vouch for the policy's hosts and this gate's names alone."
)
PERMIT = click.option(
    "--permit", multiple=True, metavar="DOMAIN", help="And for DOMAIN and everything below it; alone it constrains too."
)


@click.group(short_help="Show, export and replace the authority that agents trust.")
def ca() -> None:
    """Show, export and replace the authority that agents trust.

    Its key signs a certificate for each service that agents call; it never leaves the state's folder.
    """


@ca.command("show")
@command_options
def show(invocation: Invocation) -> None:
    """Show every authority agents have to trust: fingerprint, validity, what it may vouch for."""
    with operations(invocation) as on:
        shown = on.authorities()
    invocation.answer(to_json(shown), describe(shown))


@ca.command("export")
@command_options
def export(invocation: Invocation) -> None:
    """Print the certificates agents have to trust, in PEM: all of them while one follows another. Nothing is secret."""
    with operations(invocation) as on:
        shown = on.authorities()
    pem = "".join(authority.pem for authority in shown.authorities)
    invocation.answer({"pem": pem}, pem.rstrip("\n"))


@ca.command("create")
@CONSTRAIN
@PERMIT
@command_options
def create(invocation: Invocation, *, constrain: bool, permit: tuple[str, ...]) -> None:
    """Make the first authority, before the first `exeat up`, which makes an unconstrained one by itself."""
    _take(invocation, RotationAsked(Step.CREATE, constrain, permit), create=True)


@ca.command("rotate")
@click.option("--begin", "step", flag_value=str(Step.BEGIN), help="Make the next one; agents get both from now on.")
@click.option("--switch", "step", flag_value=str(Step.SWITCH), help="The next one signs; the old key is destroyed.")
@click.option("--finish", "step", flag_value=str(Step.FINISH), help="The old one is handed out no more.")
@click.option("--cancel", "step", flag_value=str(Step.CANCEL), help="Drop the next one before it signs.")
@click.option(
    "--overlap", type=Duration(), default="7d", show_default=True, metavar="7d",
    help="How long the next one must have been handed out before --switch.",
)  # fmt: skip
@click.option("--now", is_flag=True, help="--switch before that: agents and relays were all restarted since --begin.")
@CONSTRAIN
@PERMIT
@command_options
def rotate(
    invocation: Invocation,
    *,
    step: str | None,
    overlap: int,
    now: bool,
    constrain: bool,
    permit: tuple[str, ...],
) -> None:
    """Replace the authority, with an overlap in which agents trust both. Without an option: --begin.

    Begin, wait until every agent and relay was started anew, switch, finish. Nothing is restarted here.
    """
    wanted = Step(step) if step else Step.BEGIN
    if (constrain or permit) and wanted is not Step.BEGIN:
        raise Trouble("--constrain and --permit belong to the authority that is made", "Say them with --begin.",
                      Exit.WRONG_USE)  # fmt: skip
    _take(invocation, RotationAsked(wanted, constrain, permit, overlap, now))


def _take(invocation: Invocation, asked: RotationAsked, *, create: bool = False) -> None:
    with operations(invocation, create=create) as on:
        shown = on.rotate_authority(asked)
    invocation.answer(to_json(shown), f"{shown.done}\n{describe(shown)}")


def describe(shown: AuthoritiesShown) -> str:
    """The authorities for people."""
    blocks = [columns(_rows(authority)) for authority in shown.authorities]
    if shown.outside:
        hosts = ", ".join(shown.outside[:5]) + (" ..." if len(shown.outside) > 5 else "")
        blocks.append(f"refused: {hosts}: in the policy, and beyond what the signing one may vouch for")
    roles = {authority.role for authority in shown.authorities}
    if "next" in roles:
        blocks.append("next step, once every agent and relay was started anew: exeat ca rotate --switch")
    elif "previous" in roles:
        blocks.append("next step, once nothing trusts the previous one alone: exeat ca rotate --finish")
    return "\n".join(blocks)


def _rows(authority: AuthorityShown) -> list[tuple[str, ...]]:
    permitted = "every host" if authority.permitted is None else ", ".join(authority.permitted)
    return [
        (authority.role, authority.subject),
        ("  sha256", authority.sha256),
        ("  spki", authority.spki_sha256),
        ("  key", authority.key),
        ("  valid", f"{authority.not_before} to {authority.not_after} ({authority.seconds_left // 86_400} days left)"),
        ("  for", permitted),
    ]
