"""Alerts: raised once, kept until they are delivered (`control.state.outbox`), sent without hurting anybody else."""

from control.alerts.alert import Alert, Raise, Severity

__all__ = ["Alert", "Raise", "Severity"]
