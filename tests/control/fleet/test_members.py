"""Control's side of the line to one worker."""

import io
import json
import time
from types import SimpleNamespace
from typing import Any, cast

from control.fleet.members import Member


def test_a_word_is_never_said_as_of_later_than_it_was_read() -> None:
    """A worker believes it from then on: control may have been stopped since it was read."""
    sent = io.BytesIO()
    transport = SimpleNamespace(get_write_buffer_size=lambda: 0, is_closing=lambda: False)
    member = Member("w0", 0, 1, cast("Any", SimpleNamespace(transport=transport, write=sent.write)))
    read: list[float] = []

    def away() -> dict[str, int | None]:
        read.append(time.monotonic())
        time.sleep(0.05)
        return {"acme": None}

    member.beat(away)
    said = json.loads(sent.getvalue()[8:])["body"]
    assert said["away"] == {"acme": None}
    assert said["at"] <= read[0]
