"""`application/x-www-form-urlencoded`, in a body or a query, read in exactly one way (WHATWG URL, section 5).

Refused, because frameworks differ: a name given twice (first, last, list, joined with commas), names that differ by
case alone, `;` between pairs, bytes that are not UTF-8 or are a control character, broken percent escapes, names
with unbalanced brackets. A list is written with brackets at the end of its name (`expand[]`, `items[0][price]`), as
Stripe, Rails and PHP read it.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from rules.content.refused import ContentRefused

type Fields = dict[str, "str | Fields | list[str | Fields]"]

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
    fields: Fields = {}
    lower: dict[str, str] = {}
    if not data:
        return fields
    if data[:1] in _OTHER:
        raise ContentRefused("the form begins like JSON or XML, which some readers would take it for")
    pairs = data.split(b"&")
    if len(pairs) > MAX_PAIRS:
        raise ContentRefused(f"the form has more than {MAX_PAIRS} fields")
    for pair in pairs:
        if b";" in pair:
            raise ContentRefused("the form has a semicolon, which some readers take for a separator; write %3B")
        raw_name, _, raw_value = pair.partition(b"=")
        name, value = _text(raw_name), _text(raw_value)
        match = _NAME.fullmatch(name)
        if match is None:
            raise ContentRefused("the form has a field whose name is empty or has unbalanced brackets")
        steps = [match[1], *_STEP.findall(match[2])]
        if len(steps) > MAX_DEPTH:
            raise ContentRefused("the form has a field that is nested too deep")
        if not all(steps[:-1]):
            raise ContentRefused("the form has an empty pair of brackets that is not at the end of a name")
        if lower.setdefault(name.casefold(), name) != name:
            raise ContentRefused("the form has two names that differ by their capitals alone")
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


def _put(fields: Fields, steps: list[str], value: str) -> None:
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


def _descend(fields: Fields, steps: list[str]) -> Fields:
    at = fields
    for step in steps:
        inner = at.setdefault(step, {})
        if not isinstance(inner, dict):
            raise ContentRefused("the form has a name both with brackets and without")
        at = inner
    return at
