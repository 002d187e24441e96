"""One member of a JSON object, found in a text of any length, in the memory of that member.

Not a parser: strings and brackets are told apart, and nothing else is checked outside of what is looked for. That is
enough to know where a member stands, and not to take text that a model wrote for one. What is found is parsed strictly
by whoever asked (`counts.py`). Brackets that do not match, a member that stands there twice, and what is too deep or
too much give nothing.
"""

import json
import re
from typing import Final

from rules.catalogue.usage import Path

MAX_FOUND: Final = 16 * 1024
"""Bytes of what is looked for: some hundred counts."""
MAX_STEPS: Final = 60_000
"""Of a text; each costs one or two microseconds. The embeddings of 2048 texts are 8,000; an answer of 1,000 tokens with
the probabilities of twenty others for each is 45,000."""
MAX_DEPTH: Final = 256
_MAX_KEY: Final = 256
_RUN: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""Within a string, up to its end, or to a backslash whose other half is not here yet."""
_PLAIN: Final = rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+'
_INNER: Final = re.compile(rb"(?:[^\"{}\[\]]++|\"(?:[^\"\\]++|\\.)*+\"|\{%b\}|\[%b\])*+" % (_PLAIN, _PLAIN), re.DOTALL)
"""What matters to nobody, as far as it is whole: strings, numbers, and objects and arrays of these alone."""
_MEMBERS: Final = re.compile(rb'["{}\[\]:,]')
_OPENS: Final = {0x7D: 0x7B, 0x5D: 0x5B}
"""`}` and `]`, and what opens them."""


class Finder:
    """Feed it a text in pieces; `end` says what stands at the path."""

    __slots__ = (
        "_begins", "_broken", "_carry", "_catching", "_caught", "_descends", "_inside", "_key", "_key_next", "_level",
        "_matches", "_most", "_opened", "_path", "_seen", "steps",
    )  # fmt: skip

    def __init__(self, path: Path, most: int = MAX_STEPS) -> None:
        self._path = tuple(key.encode() for key in path)
        self._opened = bytearray()
        """Brackets that are open."""
        self._inside = False
        """Of a string."""
        self._carry = b""
        """A backslash whose other half comes with the next piece."""
        self._level = 0
        """How many keys of the path lead to the innermost object on it."""
        self._key_next = True
        """Whether in that object a key comes next."""
        self._key: bytearray | None = None
        """The key that is being read."""
        self._matches = False
        """Whether the last key is the path's next one."""
        self._descends = False
        """Whether a member's value comes next that is on the path, and not its end."""
        self._seen = [False] * len(path)
        """Which keys of the path have stood where they belong."""
        self._catching = False
        self._caught = bytearray()
        self._begins = 0
        self._most = most
        self.steps = 0
        """What it took so far."""
        self._broken = not path

    @property
    def held(self) -> int:
        """Bytes kept."""
        return len(self._caught)

    def feed(self, data: bytes) -> None:
        """The text goes on. Never raises."""
        if self._broken:
            return
        if self._carry:
            data, self._carry = self._carry + data, b""
        at = self._begins = 0
        while at < len(data) and not self._broken:
            at = self._string(data, at) if self._inside else self._outside(data, at)
        if self._catching:
            self._catch(data[self._begins : len(data) - len(self._carry)])

    def end(self) -> bytes | None:
        """What stands at the path; None where nothing does, or it cannot be told."""
        whole = not (self._broken or self._opened or self._inside or self._catching)
        return bytes(self._caught).strip() if whole and self._seen[-1] else None

    @property
    def _on_path(self) -> bool:
        return len(self._opened) == self._level + 1 and self._opened[-1] == 0x7B

    def _catch(self, data: bytes) -> None:
        self._caught += data
        if len(self._caught) > MAX_FOUND:
            self._break()

    def _break(self) -> None:
        self._broken, self._catching, self._caught = True, False, bytearray()

    def _string(self, data: bytes, at: int) -> int:
        """Behind the string's end, or the data's."""
        run = _RUN.match(data, at)
        end = len(data) if run is None else run.end()
        if self._key is not None:
            self._key += data[at:end][: _MAX_KEY + 1]
        if end < len(data) and data[end] == 0x5C:
            self._carry = b"\\"
            return len(data)
        if end < len(data):
            self._inside = False
            if self._key is not None:
                self._take_key(bytes(self._key))
        return end + 1

    def _take_key(self, key: bytes) -> None:
        self._key, self._key_next = None, False
        wanted = self._path[self._level]
        self._matches = _plain(key) == wanted if b"\\" in key else key == wanted
        if self._matches and self._seen[self._level]:
            self._break()  # it stands there twice: readers differ about which of them counts
        elif self._matches:
            self._seen[self._level] = True

    def _outside(self, data: bytes, at: int) -> int:
        """Behind the next bracket, comma, colon or opening quote that matters."""
        on_path = self._on_path
        if not on_path and self._opened:
            inner = _INNER.match(data, at)
            at = at if inner is None else inner.end()
        token = _MEMBERS.search(data, at)
        if token is None:
            return len(data)
        at, byte = token.start(), data[token.start()]
        self.steps += 1
        if self.steps > self._most or (self.steps > 1 and not self._opened):
            self._break()  # too much, or something behind the value
        elif byte == 0x22:
            self._inside = True
            self._descends = False
            if on_path and self._key_next:
                self._key = bytearray()
        elif byte in b"{[":
            self._open(byte)
        elif byte in b"}]":
            self._close(byte, data[self._begins : at], on_path=on_path)
        elif byte == 0x3A:
            self._colon(at + 1)
        else:
            self._member_ends(data[self._begins : at])
            self._key_next = True
        return at + 1

    def _open(self, byte: int) -> None:
        if len(self._opened) >= MAX_DEPTH:
            self._break()
            return
        self._opened.append(byte)
        if self._descends:
            self._descends = False
            if byte == 0x7B:
                self._level += 1
                self._key_next, self._matches = True, False

    def _close(self, byte: int, before: bytes, *, on_path: bool) -> None:
        if not self._opened or self._opened[-1] != _OPENS[byte]:
            self._break()
            return
        if on_path:
            self._member_ends(before)
        self._opened.pop()
        if on_path and self._level:
            self._level -= 1
            self._key_next = self._matches = False

    def _colon(self, at: int) -> None:
        if not self._matches or self._catching or self._key_next:
            return
        self._matches = False
        if self._level == len(self._path) - 1:
            self._catching, self._begins = True, at
        else:
            self._descends = True

    def _member_ends(self, before: bytes) -> None:
        self._descends = self._matches = False
        if self._catching:
            self._catching = False
            self._catch(before)


def _plain(key: bytes) -> bytes | None:
    """A key with escapes, without them."""
    try:
        text = json.loads(b'"%b"' % key)
        return text.encode() if isinstance(text, str) else None
    except ValueError:
        return None
