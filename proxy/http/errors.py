"""Who is at fault when a message is not carried: the agent, or the origin."""

from rules.codes import Code


class RequestRefused(Exception):
    """The agent's message is not carried. The caller answers with `code`'s status and records the rejection.

    `detail` is safe for an agent to read: it names the kind of fault, and repeats neither the agent's bytes (log
    injection) nor anything of ours. `close` is True where the connection's framing can no longer be trusted: the caller
    must answer with `Connection: close`, and must not parse another byte from it.
    """

    def __init__(self, code: Code, detail: str, *, close: bool = True) -> None:
        super().__init__(f"{code.value}: {detail}")
        self.code = code
        self.detail = detail
        self.close = close


class ResponseRefused(Exception):
    """The origin broke the protocol. The caller aborts the upstream connection and answers `upstream_protocol`.

    `detail` is safe for an agent to read and repeats none of the origin's bytes.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
