"""A stream of Server-Sent Events, some of which say what was used so far (WHATWG HTML section 9.2).

A later event's count replaces an earlier one's: where vendors say it twice they count up. It is the truth once the
last one of them was here and the stream ended, or an event came behind which nothing is missing. A stream that was cut
before that has used at least what was seen: nobody knows how much.
"""

import re
from typing import Final

from proxy.replies.event_stream import Lines
from proxy.usage.counts import Counts, Impossible, read_counts, tokens_of
from proxy.usage.finder import Finder
from rules.catalogue.usage import Usage
from rules.prices.tokens import Tokens

MAX_EVENT_BYTES: Final = 1024 * 1024
"""The last event of some vendors has the whole answer in it: 128,000 tokens are half of this."""
MAX_EVENT_LINES: Final = 10_000
MAX_STEPS: Final = 1_000_000
"""Of a stream, as in a text (`finder.MAX_STEPS`): for some 20,000 events of which each has counts."""


class EventsTap:
    """A `Tap`."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._marks = tuple(f'"{path[-1]}"'.encode() for path in usage.events)
        """Without it an event has no counts. A key that is written with escapes is not found: then nothing is known."""
        self._nothing = tuple(re.compile(re.escape(mark) + rb"[ \t]*:[ \t]*null\b") for mark in self._marks)
        self._done_marks = tuple(event.encode() for event in usage.done)
        self._lines = Lines()
        self._data: list[bytes] = []
        self._type = b""
        self._size = 0
        self._counts: Counts = {}
        self._last = False
        """Whether the event was here that completes the counts."""
        self._done = False
        self._given_up = False
        self._left = MAX_STEPS

    @property
    def held(self) -> int:
        """Of the event that is not complete."""
        return self._size + self._lines.pending

    def feed(self, data: bytes) -> None:
        """This passes now."""
        if self._given_up:
            return
        for line in self._lines.feed(data):
            self._line(line)
        self._bound(self._lines.pending)

    def tell(self, *, whole: bool) -> Tokens | None:
        """What was used; None where the stream did not say, or it may not have said all."""
        done = self._done if self._usage.done else self._last
        if self._given_up or not self._last or not (whole or done):
            return None
        return tokens_of(self._counts, self._usage)

    def give_up(self) -> None:
        """Nothing is known, and nothing is kept."""
        self._given_up, self._counts = True, {}
        self._lines, self._data, self._size = Lines(), [], 0

    def _bound(self, more: int) -> bool:
        if self._size + more > MAX_EVENT_BYTES or len(self._data) > MAX_EVENT_LINES:
            self.give_up()
        return not self._given_up

    def _line(self, line: bytes) -> None:
        if self._given_up:
            return
        if not line:
            self._dispatch()
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            if self._bound(len(value)):
                self._data.append(value)
                self._size += len(value) + 1
        elif field == b"event":
            self._type = value[:128]

    def _dispatch(self) -> None:
        lines, kind = self._data, self._type
        self._data, self._type, self._size = [], b"", 0
        if not lines:
            return
        data = lines[0] if len(lines) == 1 else b"\n".join(lines)
        if kind in self._done_marks or data.strip() in self._done_marks:
            self._done = True
        for number, path in enumerate(self._usage.events):
            mark = self._marks[number]
            if mark not in data or (data.count(mark) == 1 and self._nothing[number].search(data) is not None):
                continue
            finder = Finder(path, self._left)
            finder.feed(data)
            self._left -= finder.steps
            if self._left <= 0:
                self.give_up()
                return
            found = finder.end()
            if found is None:
                continue
            try:
                counts = read_counts(found, self._usage.counts or {})
            except Impossible:
                self.give_up()
                return
            if counts:
                self._counts.update(counts)
                self._last = self._last or number == len(self._usage.events) - 1
