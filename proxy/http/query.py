"""The names of a query's parameters, under every reading that some origin has.

Origins divide at `&`, at `;` or at both (W3C once asked for the second), decode percent signs and `+` before or after,
ignore case, take `a[]`, `a[0]`, `a.b` and `a[b]` for parts of `a`, and of several `a` use the first, the last, or all.
A query is therefore never normalised, and nothing is judged by a parameter's value. What is looked for are a few names
that must not be there at all, and a name is there if any of these readings says so.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.http.headers import canonical_name

_DIVIDER: Final = re.compile(rb"[&;]")
_STEM_END: Final = re.compile(rb"[=\[\].\0]")

# Rails, Laravel, Symfony and method-override (Express) take _method; Salesforce takes _HttpMethod.
_OVERRIDES: Final = frozenset(
    {b"-method", b"-httpmethod", b"x-http-method-override", b"x-http-method", b"x-method-override"}
)
# RFC 6750 section 2: no more than one method to transmit the token; 2.3 is this one.
_TOKENS: Final = frozenset({b"access-token"})
_HINT: Final = re.compile(r"method|token|%", re.IGNORECASE)


def overrides_method(query: str) -> bool:
    """True where a parameter may replace the method that was judged."""
    return bool(query) and _HINT.search(query) is not None and not _OVERRIDES.isdisjoint(stems(query))


def carries_token(query: str, known: frozenset[bytes] = frozenset()) -> bool:
    """True where the query holds a credential of the agent's. `known`: further names under which this service takes
    one, folded as `canonical_name` does."""
    if not query:
        return False
    if _HINT.search(query) is not None and not _TOKENS.isdisjoint(stems(query)):
        return True
    return bool(known) and not known.isdisjoint(stems(query))


def stems(query: str) -> frozenset[bytes]:
    """Every parameter's name up to its first bracket or full stop, lower-case, punctuation folded to hyphens."""
    raw = query.encode("ascii")
    found: set[bytes] = set()
    # Divided before decoding, as standards say, and after it, as some servers behind others do.
    for text in (raw, unquote_to_bytes(raw)):
        for part in _DIVIDER.split(text):
            # Decoded before the stem is cut, for an encoded bracket; cut before decoding, for an encoded equals sign.
            for name in (unquote_to_bytes(part), unquote_to_bytes(_STEM_END.split(part, maxsplit=1)[0])):
                stem = _STEM_END.split(name.replace(b"+", b" ").strip(b" \t\r\n"), maxsplit=1)[0]
                found.add(canonical_name(stem.strip(b" ")))
    return frozenset(found)
