"""The tools that an MCP server offers, asked over streamable HTTP: `initialize`, then `tools/list` page by page.

What comes back is a stranger's: how much there is of it, how long it takes and how often it goes on are bounded, and
it is read by the same strict reading as the gate has, so that a digest here is a digest there.
"""

import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from control.operations import Refused, Unavailable, WrongUse
from proxy.replies.reading import Value, read_value
from rules.content.refused import ContentRefused

PROTOCOL: Final = "2025-11-25"
"""What is offered; a server answers with the version that it speaks, and that is used."""
SOCKET_SECONDS: Final = 20.0
ALL_SECONDS: Final = 120.0
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
MAX_TOTAL_BYTES: Final = 32 * 1024 * 1024
MAX_PAGES: Final = 100
MAX_LISTED: Final = 5000
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_HIDDEN: Final = "What the server says is not shown: it could be what was sent to it."


class _NoRedirect(HTTPRedirectHandler):
    """A secret in a header is for the host that was named."""

    def redirect_request(self, *_given: object) -> None:
        return None


@dataclass(slots=True)
class McpServer:
    """One conversation with a server."""

    url: str
    headers: Mapping[str, str]
    _opener: OpenerDirector = field(init=False)
    _session: str | None = None
    _version: str | None = None
    _number: int = 0
    _read: int = 0
    _until: float = field(default_factory=lambda: time.monotonic() + ALL_SECONDS)

    def __post_init__(self) -> None:
        """Raises `WrongUse` for a URL that a secret may not be sent to."""
        try:
            parts = urlsplit(self.url)
            host = parts.hostname
            _ = parts.port
        except ValueError:
            raise WrongUse("not a URL", "Write it as in https://mcp.example.com/mcp") from None
        if parts.scheme not in ("https", "http") or not host or not self.url.isprintable() or " " in self.url:
            raise WrongUse("not an https URL", "Write it as in https://mcp.example.com/mcp")
        if parts.username is not None:
            raise WrongUse("the URL has a user in it", "Send a secret with --header 'Authorization: ...'")
        if parts.scheme == "http" and host not in _LOOPBACK:
            raise WrongUse(
                "http is spoken with this machine alone", "Write https://, so that nobody changes the tools."
            )
        secure = [HTTPSHandler(context=ssl.create_default_context())] if parts.scheme == "https" else []
        self._opener = build_opener(_NoRedirect(), *secure)

    def tools(self) -> list[Value]:
        """All tools that it lists, as it sent them. Raises `Refused` and `Unavailable`."""
        self._initialize()
        found: list[Value] = []
        cursors: set[str] = set()
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            result = self._ask("tools/list", {} if cursor is None else {"cursor": cursor})
            tools = result.get("tools")
            if not isinstance(tools, list):
                raise Refused("the server's list of tools is not a list", "Ask who runs it.")
            found += tools
            if len(found) > MAX_LISTED:
                raise Refused(f"the server lists more than {MAX_LISTED} tools", "Ask who runs it.")
            following = result.get("nextCursor")
            if following is None:
                self._leave()
                return found
            if not isinstance(following, str) or len(following) > 4096 or following in cursors:
                raise Refused("the server's list of tools goes in a circle", "Ask who runs it.")
            cursors.add(following)
            cursor = following
        raise Refused(f"the server's list of tools has more than {MAX_PAGES} pages", "Ask who runs it.")

    def _initialize(self) -> None:
        result = self._ask(
            "initialize",
            {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "exeat", "version": "1"}},
        )
        version = result.get("protocolVersion")
        if not isinstance(version, str) or not version.isascii() or not version.isprintable() or len(version) > 32:
            raise Refused("the server does not say which version of MCP it speaks", "Ask who runs it.")
        self._version = version
        with self._opened("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"}):
            pass

    def _ask(self, method: str, params: dict[str, object]) -> dict[str, Value]:
        self._number += 1
        asked = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        with self._opened("POST", asked) as answer:
            if method == "initialize":
                self._session = answer.headers.get("Mcp-Session-Id")
            for data in self._messages(answer):
                message = _parsed(data)
                if isinstance(message, dict) and getattr(message.get("id"), "text", None) == str(self._number):
                    return _result(message, method)
        raise Refused(f"the server did not answer {method}", "Ask who runs it.")

    @contextmanager
    def _opened(self, verb: str, message: object) -> Iterator[HTTPResponse]:
        if time.monotonic() > self._until:
            raise _slow()
        headers = {
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            **({} if self._session is None else {"Mcp-Session-Id": self._session}),
            **({} if self._version is None else {"MCP-Protocol-Version": self._version}),
            **self.headers,
        }
        data = None if message is None else json.dumps(message).encode("ascii")
        request = Request(self.url, data=data, headers=headers, method=verb)  # noqa: S310  # checked above
        try:
            with self._opener.open(request, timeout=SOCKET_SECONDS) as answer:
                yield answer
        except HTTPError as error:
            with error:
                raise _status(error.code) from None
        except TimeoutError:
            raise _slow() from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _slow() from None
            why = error.reason.verify_message if isinstance(error.reason, ssl.SSLCertVerificationError) else ""
            told = f"its certificate cannot be verified: {why}" if why else "it cannot be reached"
            raise Unavailable(f"the MCP server does not answer: {told}", "Check the URL, and try again.") from None
        except (OSError, HTTPException, ValueError):
            raise Unavailable("the MCP server's answer broke off", "Try again.") from None

    def _messages(self, answer: HTTPResponse) -> Iterator[bytes]:
        kind = answer.headers.get_content_type()
        if kind == "application/json":
            yield b"".join(self._pieces(answer))
        elif kind == "text/event-stream":
            yield from self._events(answer)
        else:
            raise Refused("the server answers with something else than JSON or events", "Is it the URL of MCP itself?")

    def _pieces(self, answer: HTTPResponse) -> Iterator[bytes]:
        size = 0
        while piece := answer.read1(65536):
            size += len(piece)
            self._count(len(piece), size)
            yield piece

    def _events(self, answer: HTTPResponse) -> Iterator[bytes]:
        # WHATWG HTML section 9.2.6, as far as data goes; a line that ends in CR alone is none of a server's.
        data: list[bytes] = []
        size = 0
        while line := answer.readline(MAX_MESSAGE_BYTES + 1):
            size += len(line)
            self._count(len(line), size)
            text = line.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf")
            if text.startswith(b"data:"):
                data.append(text[5:].removeprefix(b" "))
            elif not text:
                if data:
                    yield b"\n".join(data)
                data, size = [], 0

    def _count(self, new: int, size: int) -> None:
        self._read += new
        if size > MAX_MESSAGE_BYTES or self._read > MAX_TOTAL_BYTES:
            raise Refused("the server's answer is too long", "Ask who runs it.")
        if time.monotonic() > self._until:
            raise _slow()

    def _leave(self) -> None:
        """The session is over. A server may answer that it does not take that."""
        if self._session is None:
            return
        try:
            with self._opened("DELETE", None):
                pass
        except (Refused, Unavailable):
            return


def _parsed(data: bytes) -> Value:
    try:
        return read_value(data)
    except ContentRefused as error:
        raise Refused(f"the server's answer is refused: {error.detail}", "The gate would refuse it too.") from None


def _result(message: dict[str, Value], method: str) -> dict[str, Value]:
    result = message.get("result")
    if not isinstance(result, dict):
        raise Refused(f"the server answers {method} with an error", _HIDDEN)
    return result


def _status(code: int) -> Refused | Unavailable:
    if code in (401, 403):
        return Refused(f"the server lets nobody in: status {code}", "Send its secret: --header 'Authorization: ...'")
    if 300 <= code < 400:
        return Refused(f"the server sends elsewhere: status {code}", "Give the URL that it means, if you trust it.")
    if code >= 500:
        return Unavailable(f"the server fails: status {code}", "Try again.")
    return Refused(f"the server refuses: status {code}", "Is it the URL of MCP itself, as in https://host/mcp?")


def _slow() -> Unavailable:
    return Unavailable("the MCP server takes too long", "Try again.")
