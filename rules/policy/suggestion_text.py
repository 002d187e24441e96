"""A suggestion as people review it: the rules of an account in YAML, with what each is made from beside it."""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from rules.policy.suggest import Left, Seen, Suggested, Suggestion

_PLAIN: Final = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
MAX_LEFT: Final = 50
"""Lines about what no rule is suggested for; an agent that tries everything must not bury the rest."""


def fragment(found: Suggestion, head: Iterable[str], *, show_values: bool) -> str:
    """The text, which is a valid `rules` of an account."""
    lines = [*(f"# {line}" for line in head), *_left(found.left), "rules:" if found.rules else "rules: []"]
    for rule in found.rules:
        lines += _rule(rule, show_values=show_values)
    return "\n".join(lines) + "\n"


def _left(left: tuple[Left, ...]) -> Iterator[str]:
    if left:
        yield "# Not suggested:"
    for one in left[:MAX_LEFT]:
        yield f"#   {one.what}: {one.why}; {said(one.seen)}"
    if len(left) > MAX_LEFT:
        calls = sum(one.seen.calls for one in left[MAX_LEFT:])
        yield f"#   and {_calls(calls)} of {len(left) - MAX_LEFT} kinds more"


def _rule(rule: Suggested, *, show_values: bool) -> Iterator[str]:
    yield f"  # {said(rule.seen)}"
    for name, values in rule.arguments.items() if show_values else ():
        tool, _, argument = name.rpartition(": ")
        was = ", ".join(f"{json.dumps(value)} ({count})" for value, count in values.items())
        yield f"  # {f'{tool}: ' if tool else ''}args.{argument} was: {was}"
    yield f"  - id: {rule.id}"
    yield "    allow:"
    yield f"      connection: {_scalar(rule.connection)}"
    if rule.methods:
        yield f"      methods: [{', '.join(rule.methods)}]"
    if rule.path is not None:
        yield f'      path: "{rule.path}"'
    if rule.tools:
        yield "      tools:"
    for tool in rule.tools:
        if tool in rule.of_tools:
            yield f"        # {said(rule.of_tools[tool])}"
        yield f"        - {tool}"


def said(seen: Seen) -> str:
    """How often, what the present rules say, and the first and the last."""
    parts = [_calls(seen.calls)]
    if seen.denied:
        parts.append(f"{seen.denied} denied by the present rules")
    if seen.untold:
        parts.append(f"{seen.untold} the present rules cannot tell")
    when = f"first {_example(seen.first)}"
    if seen.last != seen.first:
        when += f", last {_example(seen.last)}"
    return f"{', '.join(parts)}; {when}"


def _scalar(name: str) -> str:
    """A name that YAML reads as text."""
    return name if _PLAIN.fullmatch(name) and name not in ("true", "false", "null") else json.dumps(name)


def _example(one: tuple[datetime, str]) -> str:
    return f"{moment(one[0])} {one[1]}"


def moment(at: datetime) -> str:
    """To the second, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"
