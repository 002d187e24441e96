"""MCP over HTTP: a JSON-RPC error, `{"jsonrpc": "2.0", "id", "error": {"code", "message", "data"}}`.

The id is the request's where it was read, else null (JSON-RPC 2.0 section 5). The Python SDK raises `MCPError` with
`code`, `message` and `data` when an answer of 400 or more is `application/json` and parses as a JSON-RPC error,
whatever its id; any other body becomes "Server returned an error response"
(`client.streamable_http._handle_post_request`). The TypeScript SDK raises `StreamableHTTPError` with the status as
`code` and the body at the end of its message; it makes an `McpError` of status 200 alone, which no denial has: whoever
reads the status would take it for success. Neither tries again by itself. The number is the HTTP status: JSON-RPC
leaves numbers outside of -32768 to -32000 to applications (section 5.1), and those inside mean something to clients.

Servers of MCP have any host, so this form is used where a policy says `service: mcp`.
"""

from typing import Final

from rules.services.service import JSON, Asked, Envelope, Problem, Service, beside

MAX_ID: Final = 128
"""Characters of an id that is given back; SDKs count, or take a UUID."""


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its error with our members as the data, and at the top."""
    error = {"code": problem.status, "message": problem.message, "data": dict(problem.members)}
    return Envelope(JSON, beside(problem, jsonrpc="2.0", id=_echoed(asked.request_id), error=error))


def _echoed(request_id: str | int | None) -> str | int | None:
    too_long = isinstance(request_id, str) and len(request_id) > MAX_ID
    return None if too_long else request_id


MCP: Final = Service("mcp", (), envelope, None)
