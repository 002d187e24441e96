"""Alerts as syslog takes them: RFC 5424, framed by counting (RFC 6587 section 3.4.1, RFC 5425 section 4.3)."""

import json
import re
import socket
from typing import Final

from control.alerts.alert import Alert, Severity

_FACILITY: Final = 13
"""RFC 5424 section 6.2.1: log audit."""
_SEVERITIES: Final = {Severity.CRITICAL: 2, Severity.WARNING: 4, Severity.NOTICE: 5}


def syslog_message(alert: Alert, pid: int) -> bytes:
    """One message. What there is to say is its text, as JSON: structured data would need a registered number."""
    priority = _FACILITY * 8 + _SEVERITIES[alert.severity]
    at = alert.at.strftime("%Y-%m-%dT%H:%M:%SZ")
    host = _header(socket.gethostname(), 255)
    said = json.dumps({"type": alert.kind, **alert.data()}, separators=(",", ":"), sort_keys=True)
    return f"<{priority}>1 {at} {host} exeat {pid} {_header(alert.kind, 32)} - {said}".encode("ascii")


def counted(message: bytes) -> bytes:
    """A frame: a stream's receiver is told how long the message is, whatever is in it."""
    return b"%d %b" % (len(message), message)


def _header(text: str, most: int) -> str:
    """RFC 5424 section 6: printable ASCII without spaces; `-` where there is nothing."""
    return re.sub(r"[^\x21-\x7e]", "", text)[:most] or "-"
