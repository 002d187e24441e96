"""Names for tools, of what strangers wrote: always valid, never twice, the same for the same document."""

import hashlib
import re
from collections.abc import Container
from typing import Final

_OTHER: Final = re.compile(r"[^A-Za-z0-9_./-]+", re.ASCII)
_JOINTS: Final = re.compile(r"[./]*([./])")
_LONGEST: Final = 96
RESERVED: Final = frozenset({"unknown", "never"})
"""What a request is that fits no tool, and what stands for a tool that undoes nothing."""


def tool_name(operation: str | None, method: str, path: str, taken: Container[str]) -> str:
    """A name from an operation's id, else from its method and path; with a number behind it when that is taken."""
    base = _valid(operation) if operation else ""
    base = base or _valid(f"{method.lower()}.{path.strip('/').replace('/', '.')}") or method.lower()
    if len(base) > _LONGEST:
        digest = hashlib.sha256(base.encode("ascii")).hexdigest()[:8]
        base = f"{base[:_LONGEST].rstrip('./')}-{digest}"
    name, number = base, 1
    while name in taken or name in RESERVED:
        number += 1
        name = f"{base}-{number}"
    return name


def _valid(text: str) -> str:
    # What is left of `../../x` or of a line break is words joined by dots, as the format wants them.
    plain = _OTHER.sub("_", text[:4096].replace("{", "").replace("}", ""))
    return _JOINTS.sub(r"\1", plain).strip("./_")
