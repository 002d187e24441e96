"""Why an origin was not reached. Grouped by what the caller must do; each carries its permanent code."""

from typing import ClassVar

from rules.codes import Code


class UpstreamError(Exception):
    """The call did not get through. The caller answers with `code`, and settles the call by whether bytes were sent.

    `detail` is safe for an agent: no address, no certificate content, nothing of our network. `operator_detail` is for
    records and logs.
    """

    code: ClassVar[Code] = Code.UPSTREAM_UNREACHABLE

    def __init__(self, detail: str, operator_detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.operator_detail = operator_detail or detail


class UpstreamForbidden(UpstreamError):
    """The name leads to an address that may not be dialled. Not one packet was sent to it."""

    code = Code.DESTINATION_FORBIDDEN


class UpstreamUnreachable(UpstreamError):
    """No connection: the name does not resolve, nobody listens, the connection broke, or our own cap is reached."""

    code = Code.UPSTREAM_UNREACHABLE


class UpstreamUntrusted(UpstreamError):
    """The origin's certificate does not verify for the name. No byte of a request was sent."""

    code = Code.UPSTREAM_UNTRUSTED


class UpstreamTimeout(UpstreamError):
    """The origin did not connect or answer in time."""

    code = Code.UPSTREAM_TIMEOUT


class UpstreamBroken(UpstreamError):
    """The origin broke HTTP: what it did with the request is unknown."""

    code = Code.UPSTREAM_PROTOCOL
