"""A path as a server may read it that is less strict about paths than rules are.

To rules `/v1/Refunds` is another path than `/v1/refunds`. Some servers answer both: they compare without regard to
capitals, take what stands behind a semicolon for a parameter (RFC 3986 section 3.3), a slash at the end for nothing, a
dot or a space there too, and `.json` for the form that is asked for; and many answer the same in several versions. Two
paths that are alike in this form may be one to a server.
"""

import re
from typing import Final

from rules.policy.templates import Parameter, Template

_VERSION: Final = re.compile(r"v[0-9]{1,4}(?:\.[0-9]{1,4})?(?:(?:alpha|beta)[0-9]{0,4})?", re.ASCII)
_FORM: Final = re.compile(r"\.(?:json|xml)\Z", re.ASCII)


def loosened(segment: str) -> str:
    """One segment in this form."""
    if not segment.isascii():
        segment = segment.encode("latin-1").decode("utf-8", "replace")
    text = _FORM.sub("", segment.partition(";")[0].rstrip(". ").casefold())
    return "v" if _VERSION.fullmatch(text) else text


def loosely[Segment: str | Parameter](segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """The segments of a path or a template in this form; what stands for any segment stays."""
    found = tuple(loosened(segment) if isinstance(segment, str) else segment for segment in segments)
    while len(found) > 1 and found[-1] == "":
        found = found[:-1]
    return found  # type: ignore[return-value]  # texts become texts


def loose(template: Template) -> Template:
    """The template in this form."""
    return Template(template.text, loosely(template.segments), template.rest)
