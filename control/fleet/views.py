"""Orders and their answers as they travel between control and workers."""

from dataclasses import asdict
from typing import Any

from control.status_views import InFlightCall
from credentials.revocation import Target, TargetKind
from proxy.live import CutReport, InFlight


def target_body(target: Target) -> list[str | None]:
    """A target, to be sent."""
    return [target.kind.value, target.tenant, target.name]


def target_of(body: list[str | None]) -> Target:
    """What `target_body` wrote."""
    kind, tenant, name = body
    return Target(TargetKind(str(kind)), tenant, name)


def in_flight_body(calls: tuple[InFlight, ...]) -> list[dict[str, Any]]:
    """Calls in flight, to be sent."""
    return [asdict(call) for call in calls]


def in_flight_calls(body: list[dict[str, Any]]) -> tuple[InFlightCall, ...]:
    """What `in_flight_body` wrote, in the operators' words."""
    return tuple(InFlightCall(**call) for call in body)


def cut_body(report: CutReport) -> dict[str, Any]:
    """What a cut did, to be sent."""
    return {"cut": report.cut, "micros": report.micros, "calls": in_flight_body(report.in_flight)}
