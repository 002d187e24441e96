"""Which rules of an account match a call: by connection, method and path, by its tools, and by their conditions."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from rules.action import Action
from rules.call import Call, Facts
from rules.conditions.together import says
from rules.conditions.variables import OF_LOOKUP
from rules.limits.limit import Metered
from rules.meters.tokens import TOKENS
from rules.observing import observing
from rules.policy.compile import Account, Connection
from rules.policy.matcher import TOLD, Matcher, Rule
from rules.policy.templates import normal_segments

_NO_UNITS: frozenset[str] = frozenset()
_UNCLASSIFIED: tuple[Action | None, ...] = (None,)


def allowing(call: Call, facts: Facts, account: Account) -> tuple[Rule, ...]:
    """The allow rules that match, the deciding one first; empty unless each of the call's actions has one.

    One that cannot be told does not match.
    """
    if not account.conditional:
        return _at_place(call, facts, account.allow)
    found: dict[str, Rule] = {}
    for action in facts.actions or _UNCLASSIFIED:
        judged = _judged(call, facts, account, account.allow, action)
        of_action = tuple(islice((rule for rule, told in judged if told is True), TOLD))
        if not of_action:
            return ()
        found.update((rule.id, rule) for rule in of_action)
    return tuple(islice(found.values(), TOLD))


def denying(call: Call, facts: Facts, account: Account) -> tuple[tuple[Rule, bool], ...]:
    """The deny rules that match one of the actions, each with whether that could be told: one that cannot be matches.

    Where no allow rule can match the call it is denied anyway, perhaps unread; then only what is true is told.
    """
    if not account.deny.rules:
        return ()
    if not account.conditional:
        return tuple((rule, True) for rule in _at_place(call, facts, account.deny))
    certain: dict[str, Rule] = {}
    doubtful: dict[str, Rule] = {}
    for action in facts.actions or _UNCLASSIFIED:
        for rule, told in _judged(call, facts, account, account.deny, action):
            if told is True:
                certain[rule.id] = rule
                if len(certain) == TOLD:
                    break
            elif told is None:
                doubtful[rule.id] = rule
    if certain or not doubtful or not _may_allow(call, facts, account):
        return tuple((rule, True) for rule in islice(certain.values(), TOLD))
    return tuple((rule, False) for rule in islice(doubtful.values(), TOLD))


def untold(call: Call, facts: Facts, account: Account) -> tuple[Rule, ...]:
    """The allow rules that would match an action for which none does, were they to be told."""
    if not account.conditional or not _may_allow(call, facts, account):
        return ()
    found: dict[str, Rule] = {}
    for action in facts.actions or _UNCLASSIFIED:
        judged = tuple(_judged(call, facts, account, account.allow, action))
        if not any(told is True for _, told in judged):
            found.update((rule.id, rule) for rule, told in judged if told is None)
    return tuple(islice(found.values(), TOLD))


def reads_body(call: Call, facts: Facts) -> bool:
    """Whether a rule of the account reads the body of this call: to judge it, or because the rule asks for it.

    Any rule that matches but for its condition counts: a more specific rule, or eight of them, must be no way around
    one that reads.
    """
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    return account is not None and (facts.content is not None or bool(_reached(call, facts, account.reading)))


def judged_by_body(call: Call, facts: Facts) -> bool:
    """Whether the body has to be here before the call can be judged, and whether it may be asked for.

    The facts are classified as far as they go without it. Nothing is asked of an agent whose call no rule would allow
    whatever the body says. In stage `observe` it leaves all the same, and which tool it was is worth knowing.
    """
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    connection, segments = facts.connection, normal_segments(call.path)
    if account is None or connection is None or segments is None:
        return False
    unclear = any(action.tool is None for action in facts.actions)
    metered = account.plan.of_action(connection.name)
    booked = _booked(connection, facts)
    counted = booked or (metered and bool(_counted_by_args(account, connection, facts)))
    if (unclear or counted) and observing(call, facts):
        return True
    # Asked first: policies that speak of places alone are not to pay for others.
    if not account.conditional and connection.account is None and not metered and not booked:
        return False
    if not _may_allow(call, facts, account):
        return False
    if any(_says(rule, call, facts, action, denies=True) is True for rule, action in _plain(call, facts, account)):
        return False
    if unclear and (metered or connection.name in account.by_tool or _bound_by_arg(connection)):
        return True
    return counted or any(rule.when is not None and rule.reads_body for rule in _reached(call, facts, account.reading))


def tool_matters(call: Call, facts: Facts) -> bool:
    """Whether it matters to a rule, or to the connection, which tool this is."""
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    connection = facts.connection
    if account is None or connection is None:
        return False
    if connection.name in account.by_tool or connection.account is not None or connection.book is not None:
        return True
    return account.plan.of_action(connection.name)


def counting(call: Call, facts: Facts) -> tuple[Metered, ...]:
    """What limits count by the arguments of the call's actions; nothing where no rule would allow it."""
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    connection = facts.connection
    if account is None or connection is None or not account.plan.untold(connection.name):
        return ()
    metered = _counted_by_args(account, connection, facts)
    return metered if metered and (observing(call, facts) or _may_allow(call, facts, account)) else ()


def counts_tokens(call: Call, facts: Facts) -> bool:
    """Whether what models read and write for the call matters to anything: to its price, or to a limit."""
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    connection = facts.connection
    if account is None or connection is None:
        return False
    return connection.book is not None or any(m.name == TOKENS for m in account.plan.on(connection.name))


def counted_units(call: Call, facts: Facts) -> frozenset[str]:
    """The meters that limits count the call by."""
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    connection = facts.connection
    if account is None or connection is None:
        return _NO_UNITS
    return frozenset(metered.name for metered in account.plan.on(connection.name)) or _NO_UNITS


def _booked(connection: Connection, facts: Facts) -> bool:
    """Whether what the call costs depends on what it says."""
    return connection.book is not None and any(
        action.known is not None and action.known.usage is not None for action in facts.actions
    )


def _counted_by_args(account: Account, connection: Connection, facts: Facts) -> tuple[Metered, ...]:
    on = account.plan.on(connection.name)
    return tuple(m for m in on if m.tools and any(action.tool in m.tools for action in facts.actions))


def asking(call: Call, facts: Facts) -> tuple[Rule, ...]:
    """The rules that ask for what only the service itself may be able to say; none where nothing would allow it."""
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    if account is None or not account.conditional or not _may_allow(call, facts, account):
        return ()
    reached = _reached(call, facts, account.reading)
    return tuple(rule for rule in reached if rule.when is not None and not OF_LOOKUP.isdisjoint(rule.when.reads))


def asking_the_time(call: Call, facts: Facts, account: Account) -> tuple[Rule, ...]:
    """All rules whose conditions may be asked about this call and ask for the time, whatever they say of it now.

    Rather one too many: of a rule that is missing here, a call would leave after it had closed.
    """
    segments, connection = normal_segments(call.path), facts.connection
    if not account.timed.rules or connection is None or segments is None:
        return ()
    found = {rule.id: rule for rule in account.timed.matching(connection.name, call.method, segments, at_most=None)}
    for action in facts.actions:
        if action.tool is None or action.handshake:
            named = account.timed.naming_each(connection.name, call.method, segments)
        else:
            named = account.timed.naming(connection.name, action.tool, call.method, segments)
        found.update((rule.id, rule) for rule in named)
    return tuple(rule for rule in found.values() if _may_be_about_any(rule, facts))


def _may_be_about_any(rule: Rule, facts: Facts) -> bool:
    """As `_by_any`, and of a handshake every rule may be about it."""
    return _by_any(rule, facts) or any(action.handshake for action in facts.actions)


def may_call(call: Call, facts: Facts, action: Action) -> bool:
    """Whether a rule may let the account do this, its arguments not being known: what it is worth being told of."""
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    if account is None:
        return False
    if any(told is True for _, told in _judged(call, facts, account, account.deny, action)):
        return False
    return any(told is not False for _, told in _judged(call, facts, account, account.allow, action))


def heard(call: Call, facts: Facts, account: Account, *, allows: bool) -> tuple[tuple[Rule, bool | None], ...]:
    """Every rule of one kind that fits by place or tool, and what it says of the call: of its worst action."""
    matcher = account.allow if allows else account.deny
    found: dict[str, tuple[Rule, list[bool | None]]] = {}
    for action in facts.actions or _UNCLASSIFIED:
        for rule, told in _judged(call, facts, account, matcher, action):
            found.setdefault(rule.id, (rule, []))[1].append(told)
    return tuple((rule, _together(says, allows=allows)) for rule, says in found.values())


def _together(says: list[bool | None], *, allows: bool) -> bool | None:
    if (not allows) in says:
        return not allows
    return None if None in says else allows


def _may_allow(call: Call, facts: Facts, account: Account) -> bool:
    """Whether an allow rule is there that could match, as far as is known yet."""
    if not any(action.is_unknown for action in facts.actions):
        return bool(_reached(call, facts, account.allow, at_most=1))
    opening = _reached(call, facts, account.allow)
    return all(any(_opens(rule, action) for rule in opening) for action in facts.actions)


def _bound_by_arg(connection: Connection) -> bool:
    """Whether an action's arguments have to say which account at the service it is about."""
    known = connection.known
    return connection.account is not None and known is not None and known.account_arg is not None


def _plain(call: Call, facts: Facts, account: Account) -> Iterator[tuple[Rule, Action | None]]:
    """The deny rules without a condition, each with the action that reaches it."""
    for action in facts.actions or _UNCLASSIFIED:
        alone = replace(facts, actions=() if action is None else (action,))
        for rule in _reached(call, alone, account.deny):
            if rule.when is None:
                yield rule, action


def _at_place(call: Call, facts: Facts, matcher: Matcher) -> tuple[Rule, ...]:
    """The rules that match, of an account whose rules ask for places alone: they say the same of every action."""
    segments, connection = normal_segments(call.path), facts.connection
    if connection is None or segments is None:
        return ()
    return matcher.matching(connection.name, call.method, segments)


def _reached(call: Call, facts: Facts, matcher: Matcher, at_most: int | None = None) -> tuple[Rule, ...]:
    """The rules that match but for their conditions; of those that name tools, all of the service's if it is not known
    which tool it is."""
    if not matcher.rules:
        return ()
    segments, connection = normal_segments(call.path), facts.connection
    if connection is None or segments is None:
        return ()
    by_place = matcher.matching(connection.name, call.method, segments, at_most=at_most)
    found = [rule for rule in by_place if _by_any(rule, facts)]
    if at_most is not None and len(found) < len(by_place):
        by_place = matcher.matching(connection.name, call.method, segments, at_most=None)
        found = [rule for rule in by_place if _by_any(rule, facts)]
    # Once for each tool: a batch may ask for one of them many times.
    for action in {(action.tool, action.handshake): action for action in facts.actions}.values():
        if action.tool is None or action.handshake:
            name = "" if connection.known is None else connection.known.name
            found += matcher.naming_any(connection.name, name, call.method, segments)
        else:
            found += [
                rule
                for rule in matcher.naming(connection.name, action.tool, call.method, segments)
                if _by_any(rule, facts)
            ]
    return tuple(found)


def _by_any(rule: Rule, facts: Facts) -> bool:
    """Whether the rule may be about one of the actions."""
    if rule.effects is None:
        return True
    return any(_by_effect(rule, action, denies=True) is not False for action in facts.actions or _UNCLASSIFIED)


def _judged(
    call: Call, facts: Facts, account: Account, matcher: Matcher, action: Action | None
) -> Iterator[tuple[Rule, bool | None]]:
    """The rules that match an action by tool and place, the most specific first, and what each says; one at a time."""
    segments, connection = normal_segments(call.path), facts.connection
    if connection is None or segments is None:
        return
    denies = matcher is account.deny
    # A deny rule is about a handshake only where it names that, or everything: the first of any will not do.
    if action is not None and (action.tool is None or (action.handshake and not denies)):
        name = "" if connection.known is None else connection.known.name
        named = matcher.naming_any(connection.name, name, call.method, segments)
    else:
        named = () if action is None else matcher.naming(connection.name, action.tool or "", call.method, segments)
    for rule in named:
        yield rule, _says(rule, call, facts, action, denies=denies)
    for rule in matcher.matching(connection.name, call.method, segments, at_most=None):
        yield rule, _says(rule, call, facts, action, denies=denies)


def _says(rule: Rule, call: Call, facts: Facts, action: Action | None, *, denies: bool) -> bool | None:
    """Whether a rule that fits by place matches; None where it cannot be told."""
    by_tool = _by_tool(rule, action, denies=denies)
    if by_tool is False:
        return False
    if action is not None and action.handshake and rule.tools is not None:
        # A condition is about what a tool is called with, and a handshake calls none.
        return by_tool
    told = holds(rule, call, facts, action)
    return told if told is False or by_tool is True else None


def _by_tool(rule: Rule, action: Action | None, *, denies: bool) -> bool | None:
    """Whether the action is one of the rule's tools, with one of its effects; None where that cannot be told."""
    if rule.tools is None and rule.effects is None:
        return True
    if not denies and not _opens(rule, action):
        return False
    by_effect = _by_effect(rule, action, denies=denies)
    if rule.tools is None or by_effect is False:
        return by_effect
    if action is None or action.tool is None:
        return None
    if action.handshake:
        # Whoever may call one tool of a server may open a session with it. To be denied a tool is to be denied nothing
        # else, but for all of them.
        return "*" in rule.tools or action.tool in rule.tools or not denies
    return by_effect


def _opens(rule: Rule, action: Action | None) -> bool:
    """Whether an allow rule that fits may be about the action. What is unknown is nobody's beginning and has no effect
    that anyone promised: its own name opens it, or a rule about a place."""
    if action is None or not action.is_unknown:
        return True
    return action.tool in rule.tools if rule.tools is not None else rule.effects is None


def _by_effect(rule: Rule, action: Action | None, *, denies: bool) -> bool | None:
    if rule.effects is None:
        return True
    if action is None or action.effect is None:
        return None
    if action.handshake:
        return not denies
    # Who denies writes means what a delete does, too.
    return action.effect in rule.effects or (denies and action.effect == "delete" and "write" in rule.effects)


def holds(rule: Rule, call: Call, facts: Facts, action: Action | None = None) -> bool | None:
    """What the rule's condition says of an action of the call; True where it has none, None where it cannot be told."""
    if rule.when is None:
        return True
    return says(rule.when, call, facts, rule.template, action)
