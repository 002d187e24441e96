"""A real MCP server (the Python SDK's, streamable HTTP without sessions) over TLS, in a process of its own."""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.worlds.authority import Authority

SERVER = """
import sys
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

server = MCPServer("tools", log_level="ERROR")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
def remove(name: str) -> str:
    return "removed " + name

# The Host that it is asked by is a name of the test's, not the address that it listens on.
security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
tools = server.streamable_http_app(stateless_http=True, json_response=True, transport_security=security)
chain, key, secret = sys.argv[2:]

async def app(scope, receive, send):
    # Whoever brings anything but the service's own secret is not let in.
    if scope["type"] == "http":
        brought = [value for name, value in scope["headers"] if name in (b"authorization", b"x-api-key")]
        strange = [value for name, value in scope["headers"] if b"eyJ" in value]
        if brought != [b"Bearer " + secret.encode()] or strange or scope["query_string"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            return await send({"type": "http.response.body", "body": b""})
    await tools(scope, receive, send)

uvicorn.run(app, fd=int(sys.argv[1]), ssl_certfile=chain, ssl_keyfile=key, log_level="error")
"""


class McpServer:
    """Listens from the start; a client that comes early waits in the kernel's queue."""

    def __init__(self, authority: Authority, secret: str, host: str = "mcp.test") -> None:
        self._leaf = authority.issue(host)
        self._secret = secret
        self.port = 0

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        chain, key = (Path(self._folder.name, name) for name in ("chain.pem", "key.pem"))
        chain.write_bytes(self._leaf.chain_pem)
        key.write_bytes(self._leaf.key_pem)
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            self.port = listener.getsockname()[1]
            command = [sys.executable, "-c", SERVER, str(listener.fileno()), str(chain), str(key), self._secret]
            self._process = subprocess.Popen(command, pass_fds=(listener.fileno(),))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._folder.cleanup()
