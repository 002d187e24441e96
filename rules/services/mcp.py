"""MCP over HTTP: a JSON-RPC error, `{"jsonrpc": "2.0", "id": null, "error": {"code", "message", "data"}}`.

The Python SDK raises `MCPError` with `code`, `message` and `data` when an answer of 400 or more is
`application/json` and parses as a JSON-RPC error, also without an id; any other body becomes "Server returned an error
response" (`client.streamable_http._handle_post_request`). It retries nothing by itself. The number is the HTTP status:
JSON-RPC leaves numbers outside of -32768 to -32000 to applications (JSON-RPC 2.0 section 5.1), and those inside mean
something to clients.

Servers of MCP have any host, so this form is used where a policy says `service: mcp`.
"""

from typing import Final

from rules.services.service import JSON, Asked, Envelope, Problem, Service, beside


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its error with our members as the data, and at the top."""
    error = {"code": problem.status, "message": problem.message, "data": dict(problem.members)}
    return Envelope(JSON, beside(problem, jsonrpc="2.0", id=None, error=error))


MCP: Final = Service("mcp", (), envelope, None)
