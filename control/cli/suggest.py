"""`exeat suggest`: the rules that an account's calls would have needed, for people to review."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from control.cli.actions import account_in, chosen_policy
from control.cli.connect import operations
from control.cli.invocation import Exit, Invocation, Trouble, command_options, counted, say
from control.cli.replay import SINCE_SECONDS, Since, When, progress
from control.codec import Json
from control.input_views import InputOperations
from control.replaying import Asked, Why, recorded_calls
from ledger import LedgerRefused
from rules.inputs import DecisionInputs, InputsInvalid
from rules.policy.compile import TenantPolicy
from rules.policy.suggest import Observed, Seen, Suggestion, suggest
from rules.policy.suggestion_text import fragment, moment

_HEAD = (
    "A draft to review: what was done is no reason that it may be. It takes the place of the allow rules;",
    "the deny rules stay. Narrow it with when:, leave out what is not needed, then: exeat check, exeat replay.",
)


@click.command("suggest", short_help="Write the rules that an account's calls would have needed.")
@click.argument("account")
@click.option("--tenant", metavar="T", help="Default: the only tenant that has the account.")
@click.option("--since", type=Since(), metavar="WHEN", help="7d, 2026-11-25 or a moment. Default: 7d.")
@click.option("--until", type=When(), metavar="WHEN", help="Default: now.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there.")
@click.option("--show-values", is_flag=True, help="Say which values arguments had that had few.")
@command_options
def suggest_command(
    invocation: Invocation,
    account: str,
    *,
    tenant: str | None,
    since: datetime | None,
    until: datetime | None,
    output: Path | None,
    show_values: bool,
) -> None:
    """Write the rules that an account's calls would have needed, as a part of its policy and ready to be reviewed.

    From what the calls were decided on, whatever became of them: with how often each was made, the first and the last.
    Calls of tools that the catalogue knows become rules about tools, other calls rules about paths. What a deny rule
    keeps out is listed and not suggested. Exit code 1 when the account made no call, 3 when nothing is kept of any.
    """
    policy = account_in(chosen_policy(invocation, None, None)[0], account, tenant)[0]
    ledger = invocation.state / "ledger"
    now = datetime.now(UTC)
    asked = Asked(since or now - timedelta(seconds=SINCE_SECONDS), until or now, policy.tenant, account)
    if asked.since >= asked.until:
        raise Trouble("--since is not before --until", "Exchange them.", Exit.WRONG_USE)
    lost: dict[Why, int] = {}
    try:
        with operations(invocation) as on:
            found = suggest(account, _kept(ledger, on.inputs, asked, policy, lost, progress()))
    except LedgerRefused as refused:
        raise Trouble(str(refused), "exeat ledger verify says what is wrong.") from refused
    if not found.calls and lost:
        raise Trouble(f"nothing can be told: {_lost(lost)}", "A policy says for how long it is kept (inputs).")
    if not found.calls:
        raise Trouble(f"{account} made no call since {moment(asked.since)}", "Go further back: --since 30d", Exit.NO)
    about = (
        f"{policy.tenant}/{account}, {counted(found.calls, 'call')} "
        f"from {moment(asked.since)} to {moment(asked.until)}, read with policy {policy.digest[:19]}."
    )
    missing = (f"Not read, and perhaps calls of other kinds: {_lost(lost)}.",) if lost else ()
    text = fragment(found, (about, *missing, *_HEAD), show_values=show_values)
    if output is not None:
        _write(output, text)
    if lost:
        say(f"not read: {_lost(lost)}")
    document = _document(found, policy, asked, lost, show_values=show_values)
    shown = text.rstrip("\n") if output is None else f"wrote {counted(len(found.rules), 'rule')} to {output}"
    invocation.answer(document, shown)


def _kept(
    ledger: Path,
    inputs: InputOperations,
    asked: Asked,
    policy: TenantPolicy,
    lost: dict[Why, int],
    tell: Callable[[int, int], None],
) -> Iterator[Observed]:
    """What is kept of the calls; the others are counted by why nothing is."""
    for call, _, read in recorded_calls(ledger, inputs, asked, tell):
        why = Why.NOT_KEPT if read is None else Why.ERASED if read.erased else Why.UNREADABLE
        if read is not None and read.inputs is not None:
            with suppress(InputsInvalid):
                found = DecisionInputs.from_bytes(read.inputs.encode("ascii"))
                yield call, found.now, found, policy
                continue
        lost[why] = lost.get(why, 0) + 1


def _lost(lost: dict[Why, int]) -> str:
    return ", ".join(f"{counted(number, 'call')} {why}" for why, number in sorted(lost.items()))


def _write(output: Path, text: str) -> None:
    try:
        with output.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise Trouble(f"{output} exists", "It may have been edited. Name another file.", Exit.NO) from None
    except OSError as error:
        raise Trouble(f"{output} cannot be written: {error.strerror}", "Choose another folder.") from error


def _document(
    found: Suggestion, policy: TenantPolicy, asked: Asked, lost: dict[Why, int], *, show_values: bool
) -> Json:
    rules: list[Json] = []
    for rule in found.rules:
        allow: dict[str, Json] = {"connection": rule.connection}
        if rule.methods:
            allow["methods"] = list(rule.methods)
        if rule.path is not None:
            allow["path"] = rule.path
        if rule.tools:
            allow["tools"] = list(rule.tools)
        said: dict[str, Json] = {"id": rule.id, "allow": allow, "effect": rule.effect, "seen": _seen(rule.seen)}
        if rule.of_tools:
            said["tools"] = {name: _seen(seen) for name, seen in rule.of_tools.items()}
        if show_values:
            said["arguments"] = {name: dict(values) for name, values in rule.arguments.items()}
        rules.append(said)
    return {
        "tenant": policy.tenant,
        "account": asked.account,
        "policy": policy.digest,
        "since": asked.since.isoformat(),
        "until": asked.until.isoformat(),
        "calls": found.calls,
        "not_read": {str(why): number for why, number in sorted(lost.items())},
        "rules": rules,
        "not_suggested": [{"why": left.why, "what": left.what, "seen": _seen(left.seen)} for left in found.left],
    }


def _seen(seen: Seen) -> Json:
    return {
        "calls": seen.calls,
        "denied": seen.denied,
        "untold": seen.untold,
        "first": {"call": seen.first[1], "at": moment(seen.first[0])},
        "last": {"call": seen.last[1], "at": moment(seen.last[0])},
    }
