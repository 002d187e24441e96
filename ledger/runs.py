"""What the log says about itself, checked: runs, halts, recoveries, clock and seals in time."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from ledger.clock import parse_stamp
from ledger.lifecycle import CallBook
from ledger.schema import RESERVE_TYPES

MAX_SEAL_GAP_US: Final = 90_000_000
"""Seals come every 60 s at least; half as much again for a slow disk."""
MAX_DRIFT_US: Final = 2_000_000
"""The writer records a step beyond 1 s; twice that allows for records that were stamped around it."""

type Report = Callable[[str, str, str], None]


class RunBook:
    """Walks the records in order and reports what does not fit. Keeps what the report tells about runs."""

    def __init__(self, find: Report) -> None:
        self.starts = 0
        self.recoveries: list[dict[str, object]] = []
        self.halts: list[dict[str, object]] = []
        self.clock_steps = 0
        self.first_ts = ""
        self.last_ts = ""
        self.running = False
        """False after an orderly stop with its seal."""
        self._find = find
        self._expect: tuple[str, ...] = ("genesis",)
        self._boot = ""
        self._mono = 0
        self._us = 0
        self._halted = False
        self._sealed_us: int | None = None
        self._stepped = False
        self._start_previous = -1
        self._stopping = False
        self._recovering = False
        self._recovered_open: frozenset[int] = frozenset()
        self._minute = ""
        self._minute_us = 0

    def add(self, seq: int, type_: str, record: Mapping[str, Any], calls: CallBook) -> None:
        """One record, schema-conforming, before it is entered into `calls`' successors."""
        where = f"record {seq}"
        self._pairing(where, seq, type_, record, calls)
        self._time(where, type_, record)
        if self._halted and type_ not in RESERVE_TYPES:
            self._find("halt_violated", where, f"{type_} while the log was halted")
        if type_ == "ledger.halt":
            begins = record["phase"] == "begin"
            if begins == self._halted:
                self._find("run_unpaired", where, "halts begin and end by turns")
            self._halted = begins
            self.halts.append({"seq": seq, "phase": record["phase"], "ts": record["ts"], "reason": record["reason"]})
        elif type_ == "seal":
            self._seal(where, calls)

    def finish(self) -> None:
        """The end of the log."""
        if self.running:
            self._gap("the end of the log")

    def _pairing(self, where: str, seq: int, type_: str, record: Mapping[str, Any], calls: CallBook) -> None:
        expected, self._expect = self._expect, ()
        recovering, self._recovering = self._recovering, type_ == "ledger.recover"
        if expected and type_ not in expected:
            self._find("run_unpaired", where, f"{type_} where only {' or '.join(expected)} may stand")
        elif self.starts and not self.running and type_ != "ledger.start":
            self._find("run_unpaired", where, f"{type_} after an orderly stop")
        if type_ == "genesis":
            if seq != 0:
                self._find("run_unpaired", where, "a second genesis")
            self._boot = record["boot"]
            self._mono = record["mono_us"]
            self._expect = ("ledger.start",)
        elif type_ == "ledger.start":
            self._start(where, seq, record)
        elif type_ == "ledger.stop":
            self._stopping = True
            self._expect = ("seal",)
        elif type_ == "ledger.recover":
            if expected != ("ledger.recover",) and not recovering:
                self._find("run_unpaired", where, "a recovery that follows no unclean start")
            if record["last"] != self._start_previous:
                self._find("recovery_abused", where, "the recovery continues another record than the log does")
            if record["open"] != len(calls.open):
                self._find("recovery_abused", where, "the recovery counts other open intents than the records show")
            # Kept: their workers live on and end them, or the sequencer does when one is gone.
            self._recovered_open = frozenset() if record.get("kept") else frozenset(calls.open)
            self.recoveries.append(
                {key: record[key] for key in ("ts", "segment", "offset", "bytes", "sha256", "last", "open")}
                | {"seq": seq, "kept": record.get("kept", False)}
            )

    def _start(self, where: str, seq: int, record: Mapping[str, Any]) -> None:
        previous = record["previous"]
        clean = record["clean"]
        if (previous is None) != (seq == 1) or (previous is not None and previous != seq - 1):
            self._find("run_unpaired", where, "the start names another predecessor")
        if clean and self.running:
            self._find("run_unpaired", where, "a start that calls itself clean after a run that never stopped")
        if not clean:
            self._expect = ("ledger.recover",)
        if self.starts and record["boot"] == self._boot:
            self._find("run_unpaired", where, "two runs with one boot identifier")
        self._start_previous = seq - 1
        self.starts += 1
        self.running = True
        self._stopping = False
        self._halted = False
        self._boot = record["boot"]
        self._mono = record["mono_us"]
        self._sealed_us = None
        self._stepped = False

    def _time(self, where: str, type_: str, record: Mapping[str, Any]) -> None:
        ts = record["ts"]
        mono = record["mono_us"]
        started = type_ in ("genesis", "ledger.start")
        if record["boot"] != self._boot and not started:
            self._find("run_unpaired", where, "another boot identifier without a start")
        if not self.first_ts:
            self.first_ts = ts
        if ts == self.last_ts and mono == self._mono:
            return
        try:
            now = self._parse(ts)
        except ValueError:
            self._find("record_malformed", where, "there is no such instant")
            return
        if ts < self.last_ts:
            self._find("time_reversed", where, f"{ts} after {self.last_ts}")
        if not started:
            if mono < self._mono:
                self._find("time_reversed", where, "the monotonic clock ran backwards")
            elif type_ != "clock.step" and abs((now - self._us) - (mono - self._mono)) > MAX_DRIFT_US:
                self._find("clock_step_unrecorded", where, "wall and monotonic time disagree by more than 2 s")
        elif self._sealed_us is None and self.running:
            self._sealed_us = now
        if type_ == "clock.step":
            self.clock_steps += 1
            self._stepped = True
        self.last_ts, self._us, self._mono = ts, now, mono

    def _seal(self, where: str, calls: CallBook) -> None:
        self._gap(where)
        self._sealed_us = self._us
        self._stepped = False
        if self._stopping:
            self.running = False
        left = self._recovered_open & calls.open.keys()
        if left:
            self._find("intent_left_open", f"record {min(left)}", "still open at the first seal after a recovery")
        self._recovered_open = frozenset()

    def _gap(self, where: str) -> None:
        if self._sealed_us is not None and not self._stepped and self._us - self._sealed_us > MAX_SEAL_GAP_US:
            seconds = (self._us - self._sealed_us) // 1_000_000
            self._find("seal_gap", where, f"{seconds} s since the last seal; at most 90 are accounted for")

    def _parse(self, ts: str) -> int:
        """As `parse_stamp`, the minute remembered: records of one minute are parsed by two integer conversions."""
        minute = ts[:17]
        if minute != self._minute:
            self._minute_us = parse_stamp(f"{minute}00.000000Z")
            self._minute = minute
        seconds = int(ts[17:19])
        if seconds > 59:
            raise ValueError("seconds")
        return self._minute_us + seconds * 1_000_000 + int(ts[20:26])
