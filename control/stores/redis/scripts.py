"""What runs in the server. Each script is atomic there; `lua/prelude.lua` describes the keys."""

from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

import hiredis

from control.stores.redis.wire import Wire

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


async def evaluate(wire: Wire, script: Script, root: bytes, *arguments: bytes | str | int) -> Any:
    """What the script answers; its whole text is sent to a server that has forgotten it. Raises `Lost`, `Crowded`."""
    reply = await wire.ask(b"EVALSHA", script.digest, b"1", root, *arguments)
    return await wire.ask(b"EVAL", script.text, b"1", root, *arguments) if forgotten(reply) else reply


def forgotten(reply: Any) -> bool:
    """Whether the server does not know the script by its name, and has done nothing."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")
