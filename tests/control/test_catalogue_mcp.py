"""`exeat catalogue import mcp`: the SDK's own server, with sessions and without; and servers that mean harm."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from control.catalogue import mcp_server
from control.catalogue.mcp import effect_of, import_mcp, mcp_service_name
from control.catalogue.mcp_server import McpServer
from control.catalogue.writing import check_text
from control.cli import run_command
from control.operations import OperationError, Refused, Unavailable, WrongUse
from proxy.replies.definition import definition_digest
from proxy.replies.messages import filtered
from proxy.replies.reading import read_value
from rules.catalogue.document import ServiceDocument, known_service
from rules.policy.reading import read

SECRET = "s3cret-of-the-server"
SERVER = """
import sys
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("tools", log_level="ERROR")

@server.tool(annotations=ToolAnnotations(readOnlyHint=True))
def find(words: str, most: float = 0.5) -> str:
    "Größe"
    return words

@server.tool(annotations=ToolAnnotations(readOnlyHint=False, destructiveHint=True))
def remove(name: str) -> str:
    return name

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

plain = sys.argv[2] == "plain"
tools = server.streamable_http_app(stateless_http=plain, json_response=plain)

async def app(scope, receive, send):
    if scope["type"] == "http" and (b"authorization", b"Bearer " + sys.argv[3].encode()) not in scope["headers"]:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        return await send({"type": "http.response.body", "body": b""})
    await tools(scope, receive, send)

uvicorn.run(app, fd=int(sys.argv[1]), log_level="error")
"""

type Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def exeat(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command(["catalogue", "import", "mcp", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module", params=["sessions", "plain"])
def sdk(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(listener.fileno()), request.param, SECRET],
            pass_fds=(listener.fileno(),),
        )
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()
            process.wait(10)


def test_a_servers_tools_become_a_file_with_their_definitions(sdk: str, exeat: Command, tmp_path: Path) -> None:
    file = tmp_path / "tracker.yaml"
    authorised = ("--header", f"Authorization: Bearer {SECRET}")
    code, out, err = exeat(sdk, "--name", "tracker", *authorised, "--output", file)
    assert (code, out) == (0, "")
    assert "mcp.tracker: 3 tools (1 read, 1 write, 1 delete)" in err
    text = file.read_text()
    assert SECRET not in text + err
    reading, errors = read(text.encode(), "tracker.yaml")
    assert reading is not None
    assert not errors
    service = known_service(ServiceDocument.model_validate(reading.data))
    assert (service.name, service.protocol, service.endpoint) == ("mcp.tracker", "mcp", "/mcp")
    assert {tool.name: tool.effect for tool in service.tools.values()} == {
        "mcp.tracker.find": "read",
        "mcp.tracker.remove": "delete",
        "mcp.tracker.add": "write",
    }
    # What is pinned is what the gate's filter computes of the same list.
    listed = McpServer(sdk, {"Authorization": f"Bearer {SECRET}"}).tools()
    seen = {}
    raw = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": [_plain(tool) for tool in listed]}}).encode()
    filtered(raw, lambda name, digest: bool(seen.setdefault(name, digest)))
    assert {f"mcp.tracker.{name}": digest for name, digest in seen.items()} == {
        name: tool.definition for name, tool in service.tools.items()
    }
    assert len(seen) == 3


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(member) for name, member in value.items()}
        case list():
            return list(map(_plain, value))
        case _ if hasattr(value, "text"):
            return json.loads(value.text)
        case _:
            return value


def test_a_server_that_lets_nobody_in_says_so(sdk: str, exeat: Command) -> None:
    code, out, err = exeat(sdk, "--name", "tracker", "--header", "Authorization: Bearer wrong-one")
    assert (code, out) == (1, "")
    assert "lets nobody in: status 401" in err
    assert "wrong-one" not in err


TOOL = {"name": "find", "inputSchema": {"type": "object"}}


class Scripted(BaseHTTPRequestHandler):
    """Answers with what the test says."""

    script: Callable[[dict[str, Any]], bytes]
    heard: list[tuple[str, dict[str, str]]]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).heard.append((asked["method"], dict(self.headers)))
        self.close_connection = True
        self.wfile.write(type(self).script(asked))

    def do_DELETE(self) -> None:
        type(self).heard.append(("DELETE", dict(self.headers)))
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def scripted(script: Callable[[dict[str, Any]], bytes]) -> Iterator[tuple[McpServer, list[tuple[str, dict[str, str]]]]]:
    heard: list[tuple[str, dict[str, str]]] = []
    handler = type("Handler", (Scripted,), {"script": staticmethod(script), "heard": heard})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield McpServer(f"http://127.0.0.1:{server.server_port}/mcp", {"X-Key": SECRET}), heard
        finally:
            server.shutdown()
            thread.join(10)


def http(body: bytes, kind: str = "application/json", more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}Connection: close\r\n\r\n".encode() + body


def said(asked: dict[str, Any], result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), "result": result}).encode()


def serving(listing: Callable[[dict[str, Any]], bytes]) -> Callable[[dict[str, Any]], bytes]:
    """A server that is well until it is asked for its tools."""

    def script(asked: dict[str, Any]) -> bytes:
        match asked["method"]:
            case "initialize":
                return http(said(asked, {"protocolVersion": "2025-06-18"}), more="Mcp-Session-Id: the-session\r\n")
            case "tools/list":
                return listing(asked)
            case _:
                return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"

    return script


def test_all_pages_are_asked_for_in_one_session_that_is_ended() -> None:
    def listing(asked: dict[str, Any]) -> bytes:
        page = int(asked["params"].get("cursor", "0"))
        result: dict[str, Any] = {"tools": [{**TOOL, "name": f"find{page}"}]}
        if page < 3:
            result["nextCursor"] = str(page + 1)
        noise = b': hello\n\nevent: message\ndata: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n'
        return http(noise + b"data: " + said(asked, result) + b"\r\n\r\n", "text/event-stream")

    with scripted(serving(listing)) as (server, heard):
        assert [tool["name"] for tool in server.tools() if isinstance(tool, dict)] == [
            "find0",
            "find1",
            "find2",
            "find3",
        ]
    assert [method for method, _ in heard] == ["initialize", "notifications/initialized", *["tools/list"] * 4, "DELETE"]
    for method, headers in heard:
        assert headers["X-Key"] == SECRET
        if method != "initialize":
            assert headers["Mcp-Session-Id"] == "the-session"
            assert headers["Mcp-Protocol-Version"] == "2025-06-18"


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], bytes], type[OperationError], str]] = {
    "a circle": (lambda asked: http(said(asked, {"tools": [TOOL], "nextCursor": "1"})), Refused, "in a circle"),
    "no end of pages": (
        lambda asked: http(said(asked, {"tools": [], "nextCursor": str(asked["id"])})),
        Refused,
        "more than 100 pages",
    ),
    "no end of tools": (lambda asked: http(said(asked, {"tools": [1] * 5001})), Refused, "more than 5000 tools"),
    "no list": (lambda asked: http(said(asked, {"tools": {}})), Refused, "not a list"),
    "an error": (
        lambda asked: http(json.dumps({"id": asked["id"], "error": {"code": 1, "message": SECRET}}).encode()),
        Refused,
        "answers tools/list with an error",
    ),
    "no answer": (lambda _asked: http(b'{"jsonrpc":"2.0","id":99,"result":{}}'), Refused, "did not answer"),
    "a stream that ends": (lambda _asked: http(b"data: {}\n\n", "text/event-stream"), Refused, "did not answer"),
    "not JSON": (lambda _asked: http(b"<html>"), Refused, "is refused"),
    "a name twice": (lambda _asked: http(b'{"id":2,"id":2,"result":{"tools":[]}}'), Refused, "a name twice"),
    "a page": (lambda _asked: http(b"<html>", "text/html"), Refused, "something else than JSON"),
    "too much": (lambda _asked: http(b" " * 5000), Refused, "too long"),
    "too much of a line": (lambda _asked: http(b"data: " + b"x" * 5000, "text/event-stream"), Refused, "too long"),
    "too many lines": (lambda _asked: http(b": x\n" * 5000, "text/event-stream"), Refused, "too long"),
    "elsewhere": (
        lambda _asked: b"HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
        Refused,
        "sends elsewhere: status 307",
    ),
    "a failure": (lambda _asked: b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", Unavailable, "fails: status 503"),
    "no HTTP": (lambda _asked: b"SSH-2.0\r\n\r\n", Unavailable, "broke off"),
    "half of it": (
        lambda _asked: b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"id"',
        Refused,
        "is refused",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_server_that_does_not_answer_as_it_should_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listing, error, says = HOSTILE[kind]
    if kind.startswith("too"):
        monkeypatch.setattr(mcp_server, "MAX_MESSAGE_BYTES", 4096)
    with scripted(serving(listing)) as (server, heard), pytest.raises(error) as caught:
        server.tools()
    assert says in str(caught.value)
    assert SECRET not in f"{caught.value}{caught.value.cure}"
    assert len(heard) <= 110


def test_a_server_has_so_long_for_all_of_it() -> None:
    with scripted(serving(lambda asked: http(said(asked, {"tools": [TOOL]})))) as (server, _):
        late = McpServer(server.url, {}, _until=0.0)
        with pytest.raises(Unavailable, match="too long"):
            late.tools()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://mcp.acme.example/mcp", "http is spoken with this machine alone"),
        ("file:///etc/passwd", "not an https URL"),
        ("mcp.acme.example", "not an https URL"),
        ("https://", "not an https URL"),
        ("https://user:pw@mcp.acme.example/", "a user in it"),
        ("https://[x/", "not a URL"),
        ("https://a.example/\r\nX: y", "not an https URL"),
    ],
)
def test_what_is_no_place_for_a_secret_is_wrong_use(exeat: Command, url: str, says: str) -> None:
    code, _, err = exeat(url, "--name", "x")
    assert code == 2
    assert says in err
    assert "pw" not in err


def test_a_header_that_is_none_is_not_repeated(exeat: Command) -> None:
    for header in (SECRET, f"A: {SECRET}\r\nB: c", f"A b: {SECRET}"):
        code, out, err = exeat("https://mcp.acme.example/", "--header", header)
        assert code == 2
        assert SECRET not in out + err


def test_effects_are_the_worse_of_what_a_server_says() -> None:
    assert effect_of({"annotations": {"readOnlyHint": True}}) == "read"
    assert effect_of({"annotations": {"readOnlyHint": True, "destructiveHint": True}}) == "delete"
    assert effect_of({"annotations": {"readOnlyHint": True, "destructiveHint": False}}) == "read"
    for silent in ({}, {"annotations": None}, {"annotations": {"readOnlyHint": "true"}}, {"annotations": [True]}):
        assert effect_of(silent) == "write"  # type: ignore[arg-type]


def test_names_that_cannot_be_written_and_twins_are_left_out() -> None:
    names = ["good", "unknown", "two words", "a\n  b: {effect: read}", "x" * 200, "twin", "twin", "ä", "a/b.c"]
    listed = [read_value(json.dumps({**TOOL, "name": name}).encode()) for name in names]
    found = import_mcp(listed, "mcp.t", "https://mcp.acme.example/mcp")
    assert [tool.name for tool in found.tools] == ["good", "a/b.c"]
    assert len(found.left_out) == 6
    assert all(left.operation.isprintable() for left in found.left_out)
    assert found.tools[0].definition == definition_digest(listed[0])
    with pytest.raises(Refused, match="none of the server's tools"):
        import_mcp(listed[1:2], "mcp.t", "https://mcp.acme.example/mcp")
    with pytest.raises(Refused, match="without a name"):
        import_mcp([None], "mcp.t", "https://mcp.acme.example/mcp")


@pytest.mark.parametrize(
    ("url", "name", "service", "hosts"),
    [
        ("https://mcp.tracker.example/mcp", None, "mcp.tracker", ("mcp.tracker.example",)),
        ("https://mcp.tracker.example/mcp", "issues", "mcp.issues", ("mcp.tracker.example",)),
        ("https://mcp.tracker.example/mcp", "mcp.issues", "mcp.issues", ("mcp.tracker.example",)),
        ("http://127.0.0.1:80/mcp", "t", "mcp.t", ()),
        ("http://localhost/mcp", "t", "mcp.t", ()),
    ],
)
def test_a_server_is_named_after_its_host(url: str, name: str | None, service: str, hosts: tuple[str, ...]) -> None:
    assert mcp_service_name(url, name) == service
    assert import_mcp([read_value(json.dumps(TOOL).encode())], service, url).hosts == hosts


def test_the_endpoint_of_the_url_is_kept() -> None:
    tool = read_value(json.dumps(TOOL).encode())
    for url, endpoint in (
        ("https://a.example/v1/t?key=x", "/v1/t"),
        ("https://a.example", "/"),
        ("https://a.example/t/", "/t/"),
    ):
        found = import_mcp([tool], "mcp.t", url)
        assert check_text(found.text).endpoint == endpoint
    for path in ("/{id}", "/a//b", "/a/../b"):
        with pytest.raises(WrongUse):
            import_mcp([tool], "mcp.t", f"https://a.example{path}")


@pytest.mark.parametrize(("url", "name"), [("http://127.0.0.1/", None), ("https://a.example/", "Not One")])
def test_a_server_without_a_name_is_wrong_use(url: str, name: str | None) -> None:
    with pytest.raises(WrongUse):
        mcp_service_name(url, name)
