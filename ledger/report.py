"""What the verifier says: a value for programs, a text for people."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from ledger.clock import parse_stamp
from ledger.findings import KINDS, Finding, Weight
from ledger.note import Checkpoint

if TYPE_CHECKING:
    from ledger.verify import _Verification

EXIT_INTACT: Final = 0
EXIT_TAMPERED: Final = 1
EXIT_WRONG_USE: Final = 2
EXIT_COULD_NOT_RUN: Final = 3
EXIT_INCOMPLETE: Final = 4

MAX_LISTED: Final = 100
"""Calls named one by one; beyond it only the count grows."""

NOT_PROVEN: Final = (
    "that the gate saw every call: traffic around it leaves no record here",
    "that what the gate recorded was right: it states what it decided and what it saw",
    "absolute time: the clock was the writer's own",
    "that no other history was signed with these keys: nothing outside this directory witnesses it (rung 0)",
    "records after the newest checkpoint against whoever can remove both them and their receipts",
)


EGRESS_ACT: Final = "egress.probed"
"""The operator's act that says whether an agent's surroundings had a way around the gate."""


@dataclass(frozen=True, slots=True)
class EgressProbe:
    """The last such act: what an operator says to have found, in one place at one time."""

    seq: int
    ts: str
    tenant: str
    result: str
    opened: str

    def __str__(self) -> str:
        shown = self.opened if len(self.opened) <= 200 else self.opened[:197] + "..."
        found = f"{self.result}: {shown}" if shown else self.result
        return f"#{self.seq}, {self.ts}, tenant {self.tenant}, found: {found}"


@dataclass(frozen=True, slots=True)
class Report:
    """What can be said of a ledger."""

    origin: str
    exit_code: int
    findings: tuple[Finding, ...]
    records: int
    """Verified from record 0 without a gap."""
    segments: int
    bytes: int
    root: str
    first_ts: str
    last_ts: str
    tenants: int
    types: dict[str, int]
    checkpoint: Checkpoint | None
    """The newest valid one in the directory."""
    agrees_through: int | None
    """Records covered by the auditor's own kept checkpoint, when one was given and agrees."""
    rung: int
    required_rung: int
    anchored_through: int
    """Records that anything beyond this directory vouches for; 0 on rung 0."""
    tail_records: int
    """Records after the newest checkpoint."""
    tail_seconds: int
    keys: tuple[tuple[str, int, int | None], ...]
    """(vkey, first record, record from which it is no longer valid)."""
    starts: int
    stopped: bool
    recoveries: tuple[dict[str, object], ...]
    halts: tuple[dict[str, object], ...]
    clock_steps: int
    indeterminate: int
    indeterminate_calls: tuple[str, ...]
    open_calls: tuple[str, ...]
    policies: int
    tenant: dict[str, object] | None
    egress_probe: EgressProbe | None
    not_proven: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One word for people."""
        return {EXIT_INTACT: "INTACT", EXIT_INCOMPLETE: "INTACT BUT INCOMPLETE"}.get(self.exit_code, "TAMPERED")

    def to_json(self) -> dict[str, object]:
        """The report as plain values; `exeat-verify/v1`."""
        checkpoint = self.checkpoint
        return {
            "format": "exeat-verify/v1",
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "log": self.origin,
            "findings": [
                {
                    "name": finding.name,
                    "weight": str(finding.kind.weight),
                    "classes": list(finding.kind.classes),
                    "where": finding.where,
                    "detail": finding.detail,
                }
                for finding in self.findings
            ],
            "records": self.records,
            "segments": self.segments,
            "bytes": self.bytes,
            "root": self.root,
            "first_ts": self.first_ts,
            "last_ts": self.last_ts,
            "tenants": self.tenants,
            "types": self.types,
            "checkpoint": None if checkpoint is None else {"size": checkpoint.size, "root": checkpoint.root.hex()},
            "agrees_through": self.agrees_through,
            "rung": self.rung,
            "required_rung": self.required_rung,
            "anchored_through": self.anchored_through,
            "tail": {"records": self.tail_records, "seconds": self.tail_seconds},
            "keys": [{"key": key, "from": first, "until": until} for key, first, until in self.keys],
            "starts": self.starts,
            "stopped": self.stopped,
            "recoveries": list(self.recoveries),
            "halts": list(self.halts),
            "clock_steps": self.clock_steps,
            "indeterminate": {"count": self.indeterminate, "calls": list(self.indeterminate_calls)},
            "open_calls": list(self.open_calls),
            "policies": self.policies,
            "tenant": self.tenant,
            "egress_probe": None if self.egress_probe is None else asdict(self.egress_probe),
            "not_proven": list(self.not_proven),
        }


class Tally:
    """Counts while records go by."""

    def __init__(self, tenant: str | None) -> None:
        self.bytes = 0
        self.checkpoint: Checkpoint | None = None
        self.agrees_through: int | None = None
        self._tenant = tenant
        self._types: Counter[str] = Counter()
        self._tenant_types: Counter[str] = Counter()
        self._indeterminate = 0
        self._indeterminate_calls: list[str] = []
        self._checkpointed_ts = ""
        self._egress_probe: EgressProbe | None = None

    def add(self, seq: int, type_: str, tenant: str, record: dict[str, Any]) -> None:
        """One verified record."""
        self._types[type_] += 1
        if tenant == self._tenant:
            self._tenant_types[type_] += 1
        if type_ == "call.outcome" and record["result"]["status"] == "indeterminate":
            self._indeterminate += 1
            if len(self._indeterminate_calls) < MAX_LISTED:
                self._indeterminate_calls.append(f"{record['call']} #{seq}")
        elif type_ == "seal":
            self._checkpointed_ts = record["ts"]
        elif type_ == "operator.act" and record["act"] == EGRESS_ACT:
            detail = record["detail"]
            self._egress_probe = EgressProbe(
                seq, record["ts"], tenant, detail.get("result", "not said"), detail.get("opened", "")
            )

    def report(self, run: "_Verification", required: int) -> Report:
        """The report of a finished run. The rung is never graded up: nothing here looks beyond the directory."""
        rung = 0
        findings = list(run.findings)
        if rung < required:
            findings.append(Finding("anchor_insufficient", "the log", f"rung {rung} reached, rung {required} demanded"))
        weights = {finding.kind.weight for finding in findings}
        exit_code = EXIT_INCOMPLETE if weights else EXIT_INTACT
        if Weight.TAMPERED in weights:
            exit_code = EXIT_TAMPERED
        state = run.state
        covered = self.checkpoint.size if self.checkpoint is not None else 0
        runs = run.runs
        tail = max(0, state.size - covered)
        seconds = 0
        if tail and runs.last_ts and self._checkpointed_ts:
            seconds = max(0, parse_stamp(runs.last_ts) - parse_stamp(self._checkpointed_ts)) // 1_000_000
        tenant: dict[str, object] | None = None
        if self._tenant is not None:
            tree = state.tenants.get(self._tenant)
            tenant = {
                "name": self._tenant,
                "records": tree.size if tree is not None else 0,
                "root": tree.frontier.root().hex() if tree is not None else None,
                "types": dict(sorted(self._tenant_types.items())),
            }
        return Report(
            origin=run.trust.origin,
            exit_code=exit_code,
            findings=tuple(findings),
            records=state.size,
            segments=len(run.layout.segments),
            bytes=self.bytes,
            root=state.frontier.root().hex(),
            first_ts=runs.first_ts,
            last_ts=runs.last_ts,
            tenants=len(state.tenants),
            types=dict(sorted(self._types.items())),
            checkpoint=self.checkpoint,
            agrees_through=self.agrees_through,
            rung=rung,
            required_rung=required,
            anchored_through=0,
            tail_records=tail,
            tail_seconds=seconds,
            keys=tuple((known.verifier.vkey, known.first, known.until) for known in run.keys.ranges),
            starts=runs.starts,
            stopped=runs.starts > 0 and not runs.running,
            recoveries=tuple(runs.recoveries),
            halts=tuple(runs.halts),
            clock_steps=runs.clock_steps,
            indeterminate=self._indeterminate,
            indeterminate_calls=tuple(self._indeterminate_calls),
            open_calls=tuple(f"{intent.call} #{intent.seq}" for intent in list(state.calls.open.values())[:MAX_LISTED]),
            policies=len(state.policies),
            tenant=tenant,
            egress_probe=self._egress_probe,
            not_proven=(*NOT_PROVEN[:1], _around(self._egress_probe), *NOT_PROVEN[1:]),
        )


def _around(probe: EgressProbe | None) -> str:
    if probe is None:
        return "that there is no way around it: no egress probe is on record"
    return f"that there is no way around it: the last egress probe on record proves none ({probe})"


def render(report: Report) -> str:
    """The report as people read it. Control characters of data never reach the terminal."""
    lines = [_headline(report)]
    for finding in report.findings:
        lines.append(f"  {finding.name}: {finding.where}")
        lines.append(f"      {KINDS[finding.name].meaning}: {finding.detail}")
    if report.records:
        last = report.records - 1
        lines.append(f"verified   records 0 to {last} in {report.segments} segment(s), {report.tenants} tenant(s)")
        lines.append(f"           {report.first_ts} to {report.last_ts}")
        lines.append(f"           root {report.root}")
    if report.checkpoint is not None:
        tail = (
            f"; tail {report.tail_records} record(s), {report.tail_seconds} s" if report.tail_records else "; no tail"
        )
        lines.append(f"checkpoint through #{report.checkpoint.size - 1}{tail}")
    if report.agrees_through is not None:
        lines.append(f"           agrees with your kept checkpoint through #{report.agrees_through - 1}")
    lines.append(f"anchored   rung {report.rung} of the demanded {report.required_rung}: nothing beyond this directory")
    for key, first, until in report.keys:
        lines.append(f"key        {key} from #{first}{'' if until is None else f' to #{until - 1}'}")
    state = "stopped in order" if report.stopped else "still running, or ended without a stop"
    lines.append(
        f"runs       {report.starts}, {state}; {len(report.recoveries)} recovered, {report.clock_steps} clock steps"
    )
    lines.extend(
        f"           recovered at #{recovery['seq']}: {recovery['bytes']} torn bytes set aside, "
        f"{recovery['open']} open intent(s) "
        + ("left to their workers" if recovery["kept"] else "closed as indeterminate")
        for recovery in report.recoveries
    )
    lines.extend(f"           halt {halt['phase']} at #{halt['seq']}: {halt['reason']}" for halt in report.halts)
    if report.indeterminate:
        listed = ", ".join(report.indeterminate_calls[:10])
        more = f" and {report.indeterminate - 10} more" if report.indeterminate > 10 else ""
        lines.append(f"unknown    {report.indeterminate} call(s) ended indeterminate: {listed}{more}")
    if report.open_calls:
        lines.append(
            f"open       {len(report.open_calls)} intent(s) without an outcome yet: {', '.join(report.open_calls[:10])}"
        )
    if report.tenant is not None:
        lines.append(
            f"tenant     {report.tenant['name']}: {report.tenant['records']} record(s), root {report.tenant['root']}"
        )
    lines.append("NOT PROVEN")
    lines.extend(f"  - {line}" for line in report.not_proven)
    return printable("\n".join(lines)) + "\n"


def _headline(report: Report) -> str:
    if report.exit_code == EXIT_INTACT:
        return f"INTACT, COMPLETE, ANCHORED AS DEMANDED (rung {report.rung}): {report.origin}"
    if report.exit_code == EXIT_INCOMPLETE:
        return f"INTACT, BUT INCOMPLETE OR NOT ANCHORED AS DEMANDED: {report.origin}"
    return f"TAMPERED: {report.origin}"


def printable(text: str) -> str:
    """Data as it may be shown on a terminal: control, format and bidirectional characters become escapes.

    A record can hold any valid text, so a host or a reason could carry ANSI sequences or right-to-left marks.
    """
    return "".join(
        char if char == "\n" or (char.isprintable()) else char.encode("unicode_escape").decode("ascii") for char in text
    )
