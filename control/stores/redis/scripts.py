"""What runs in the server. Each script is atomic there; `lua/prelude.lua` describes the keys."""

from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text, and the name the server gives it."""

    text: bytes
    digest: bytes


def _script(name: str) -> Script:
    # The first line says what the server may do with it when memory is short: what ends a reservation always runs.
    flags, rest = (_FOLDER / f"{name}.lua").read_bytes().split(b"\n", 1)
    text = flags + b"\n" + (_FOLDER / "prelude.lua").read_bytes() + rest
    return Script(text, sha1(text, usedforsecurity=False).hexdigest().encode())  # the server's own naming


RESERVE: Final = _script("reserve")
FINISH: Final = _script("finish")
KEEP: Final = _script("keep")
PAUSE: Final = _script("pause")
LOAD: Final = _script("load")
LEAVE: Final = _script("leave")
ALL: Final = (RESERVE, FINISH, KEEP, PAUSE, LOAD, LEAVE)
