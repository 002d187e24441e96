"""`exeat actions`: the access review of one account, now, as of a date, or of a policy that is not applied yet."""

from datetime import UTC, datetime, time
from pathlib import Path

import click

from control.cli.connect import operations
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options
from control.codec import to_json
from control.operations import PolicyRefused, Refused
from control.policies import check_policy
from rules.policy.access import Access, Action, access_of
from rules.policy.compile import Account, PolicySet, TenantPolicy
from rules.policy.source import PolicyInvalid


class Moment(click.ParamType[datetime]):
    """A date (its last moment, UTC) or a moment with its zone."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """As the type says; fails with how to write one."""
        text = str(value)
        try:
            if len(text) == 10:
                return datetime.combine(datetime.fromisoformat(text), time.max, UTC)
            moment: datetime | None = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail("write 2026-11-25, or 2026-11-25T14:00:00Z", param, ctx)
        return moment


@click.command(short_help="List everything an account can do, and who answers for it.")
@click.argument("account")
@click.option("--tenant", metavar="T", help="Default: the only tenant that has the account.")
@click.option("--as-of", "as_of", type=Moment(), metavar="DATE", help="Under the policy that was active then.")
@click.option("--policy", "path", type=click.Path(path_type=Path), help="Under this policy, applied or not.")
@command_options
def actions(
    invocation: Invocation, account: str, *, tenant: str | None, as_of: datetime | None, path: Path | None
) -> None:
    """List everything an account can do, what it is denied of that, its limits, and the three people who answer for it.

    For an access review. Exit code 1 when nobody is one of the owners, or when there is no such account.
    """
    policy, source = chosen_policy(invocation, as_of, path)
    found = access_of(*account_in(policy, account, tenant))
    document = {
        "policy": policy.digest,
        "source": source,
        "access": to_json(found),
        "owners_missing": to_json(found.owners_missing),
    }
    invocation.answer(to_json(document), _text(found, policy, source))
    if found.owners_missing:
        invocation.end(Exit.NO)


def chosen_policy(invocation: Invocation, as_of: datetime | None, path: Path | None) -> tuple[PolicySet, str]:
    """The active policy, that of a moment, or that of a path; and which it is, in words."""
    if as_of is not None and path is not None:
        raise Trouble("--as-of and --policy name two policies", "Give one of them.", Exit.WRONG_USE)
    if path is not None:
        try:
            return check_policy(path).compiled, str(path)
        except PolicyRefused as refused:
            raise Trouble(f"{path} is not valid: {refused}", f"Look closer: exeat check {path}", Exit.NO) from refused
    with operations(invocation) as on:
        stored = on.policy_in_force(as_of)
    try:
        policy = PolicySet.from_bundle(stored.bundle.encode("utf-8"))
    except PolicyInvalid as invalid:
        raise Trouble(f"the policy of {stored.since} cannot be used by this version: {invalid}", "") from invalid
    return policy, f"active since {stored.since}, proof #{stored.seq}"


def account_in(policy: PolicySet, account: str, tenant: str | None) -> tuple[TenantPolicy, Account]:
    """The account of that name, and its tenant's policy. Raises `Refused` when there is none, with those there are."""
    having = [
        found for found in policy.tenants.values() if account in found.accounts and tenant in (None, found.tenant)
    ]
    if not having:
        names = sorted({name for found in policy.tenants.values() for name in found.accounts})
        raise Refused(f"the policy has no account {account}", f"It has: {', '.join(names[:10]) or 'none'}")
    if len(having) > 1:
        tenants = ", ".join(found.tenant for found in having)
        raise Trouble(f"several tenants have an account {account}: {tenants}", "Name one: --tenant T", Exit.WRONG_USE)
    return having[0], having[0].accounts[account]


def _text(found: Access, policy: PolicySet, source: str) -> str:
    lines = [f"{found.tenant}/{found.account}  {found.stage}  policy {policy.digest[:19]} ({source})"]
    for word, meaning in (("accountable", "answers for it"), ("system", "runs it"), ("risk", "accepted the risk")):
        lines.append(f"  {word:<12} {getattr(found, word) or 'MISSING'}  {meaning}")
    lines.append("may" if found.allowed else "may do nothing")
    lines.append(columns([_row(action) for action in found.allowed]))
    if found.denied:
        lines += ["never", columns([_row(action) for action in found.denied])]
    limits = [*found.slots, *found.rates, *found.spends, *found.spikes]
    lines += [f"at most {limit}" for limit in limits] or ["without any limit"]
    lines += [f"all accounts together at most {limit}" for limit in found.tenant_limits]
    return "\n".join(line for line in lines if line)


def _row(action: Action) -> tuple[str, ...]:
    methods = ",".join(action.methods) or "any method"
    asked = [*action.tools, *(("only " + "/".join(action.effects),) if action.effects else ())]
    when = "" if action.when is None else f"when {action.when}"
    return (
        f"  {action.rule}",
        methods,
        f"{action.destination}{action.path}",
        f"({action.connection})",
        ", ".join(asked),
        when,
    )
