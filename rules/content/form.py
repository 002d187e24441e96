"""`application/x-www-form-urlencoded`, in a body or a query, read in exactly one way (WHATWG URL, section 5).

Refused, because frameworks differ: a name given twice (first, last, list, joined with commas), names that differ by
case alone or by what PHP takes for an underscore, `;` between pairs, bytes that are not UTF-8 or are a control
character, broken percent escapes, names with unbalanced brackets. A list is written with brackets at the end of its
name (`expand[]`, `items[0][price]`), as Stripe, Rails and PHP read it, in a multipart form too.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from rules.content.refused import ContentRefused

type Nested[Leaf] = dict[str, "Leaf | Nested[Leaf] | list[Leaf | Nested[Leaf]]"]
type Fields = Nested[str]

MAX_PAIRS: Final = 1000
"""As many as PHP and Rack take; beyond it some drop the rest silently."""
MAX_DEPTH: Final = 16
_OTHER: Final = (b"{", b"[", b'"', b"<", b" ", b"\t", b"\r", b"\n")
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NAME: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_STEP: Final = re.compile(r"\[([^\[\]]*)\]")


def read_form(data: bytes) -> Fields:
    """The fields, nested by the brackets in their names. Raises `ContentRefused`."""
    if not data:
        return {}
    if data[:1] in _OTHER:
        raise ContentRefused("the form begins like JSON or XML, which some readers would take it for")
    pairs = data.split(b"&")
    if len(pairs) > MAX_PAIRS:
        raise ContentRefused(f"the form has more than {MAX_PAIRS} fields")
    return nested(map(_pair, pairs))


def _pair(pair: bytes) -> tuple[str, str]:
    if b";" in pair:
        raise ContentRefused("the form has a semicolon, which some readers take for a separator; write %3B")
    name, _, value = pair.partition(b"=")
    return _text(name), _text(value)


def nested[Leaf](pairs: Iterable[tuple[str, Leaf]]) -> Nested[Leaf]:
    """Values by their names, nested by the brackets in them; no value may be a map. Raises `ContentRefused`."""
    fields: Nested[Leaf] = {}
    spelt: dict[tuple[str, ...], str] = {}
    for name, value in pairs:
        match = _NAME.fullmatch(name)
        if match is None:
            raise ContentRefused("the form has a field whose name is empty or has unbalanced brackets")
        steps = [match[1], *_STEP.findall(match[2])]
        if len(steps) > MAX_DEPTH:
            raise ContentRefused("the form has a field that is nested too deep")
        if not all(steps[:-1]):
            raise ContentRefused("the form has an empty pair of brackets that is not at the end of a name")
        # PHP reads the beginning of a name so. Each step is compared: a[b] and A[c] are parts of one map to some.
        folded = (steps[0].lstrip(" ").replace(" ", "_").replace(".", "_").casefold(), *map(str.casefold, steps[1:]))
        for depth, step in enumerate(steps, 1):
            if spelt.setdefault(folded[:depth], step) != step:
                raise ContentRefused("the form has two names that differ by their capitals alone, or by . and _")
        _put(fields, steps, value)
    return fields


def _text(raw: bytes) -> str:
    if _BROKEN_ESCAPE.search(raw) is not None:
        raise ContentRefused("the form has a percent sign that begins no escape")
    try:
        text = unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise ContentRefused("the form is not UTF-8") from None
    if _CONTROL.search(text) is not None:
        raise ContentRefused("the form has a control character")
    return text


def _put[Leaf](fields: Nested[Leaf], steps: list[str], value: Leaf) -> None:
    at = fields
    last = steps.pop()
    if last == "":  # `name[]`: one more item of a list
        name = steps.pop()
        at = _descend(at, steps)
        items = at.setdefault(name, [])
        if not isinstance(items, list):
            raise ContentRefused("the form has a name both as a list and as something else")
        items.append(value)
        return
    at = _descend(at, steps)
    if last in at:
        raise ContentRefused("the form has a name twice")
    at[last] = value


def _descend[Leaf](fields: Nested[Leaf], steps: list[str]) -> Nested[Leaf]:
    at = fields
    for step in steps:
        inner = at.setdefault(step, {})
        if not isinstance(inner, dict):
            raise ContentRefused("the form has a name both with brackets and without")
        at = inner
    return at
