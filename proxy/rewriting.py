"""At the base-URL door a response's references lead back to the door, where they would lead around it.

Rewritten are `Location`, `Content-Location` and `Link`, where they point at a connection of the tenant; a cookie is
kept to its connection's path, because at this door all services share one host. Fields that speak about the whole host
are dropped for the same reason. Bodies are never touched.
"""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urljoin, urlsplit

from proxy.http.target import DEFAULT_PORTS, format_authority
from proxy.journey import Journey
from rules.call import Call

Finder = Callable[[str, str, int], str | None]
"""The name of the tenant's connection for a scheme, host and port; None when there is none."""

_REFERENCES: Final = frozenset({b"location", b"content-location"})
_DROPPED: Final = frozenset(
    {
        b"strict-transport-security",
        b"clear-site-data",
        b"public-key-pins",
        b"expect-ct",
        b"nel",
        b"report-to",
        b"reporting-endpoints",
        b"accept-ch",
        b"service-worker-allowed",
        b"set-cookie2",
    }
)
"""RFC 6797, Clear-Site-Data and the like are about a host, and the host is ours. Set-Cookie2 (RFC 2965, historic) is
still read by Java, by rules of its own."""
MAX_REFERENCES: Final = 100
"""In the Link fields of one response; each costs some 50 µs on the loop. Beyond it the fields are dropped."""
_TAIL: Final = re.compile(r"[?#]")
_SEPARATOR: Final = re.compile(r"[/\\]")
_ENCODED_DOT: Final = re.compile(r"%2e", re.IGNORECASE)


class Rewriter:
    """Rewrites the fields of one response."""

    __slots__ = ("_door", "_find", "_home", "_references", "_url")

    def __init__(self, door: str, home: str, url: str, find: Finder) -> None:
        """`door`: the door's own origin as the agent knows it, `http://127.0.0.1:8080`. `home`: the connection's name.
        `url`: what the service was asked for, to which its relative references refer."""
        self._door = door
        self._home = home
        self._url = url
        self._find = find
        self._references = 0

    def __call__(self, name: bytes, value: bytes) -> bytes | None:
        """The field's value for the agent; None: the field is dropped."""
        if name in _REFERENCES:
            return self._reference(value.decode("latin-1")).encode("latin-1")
        if name == b"link":
            self._references += value.count(b"<")
            if self._references > MAX_REFERENCES:
                return None
            return self._link(value.decode("latin-1")).encode("latin-1")
        if name == b"set-cookie":
            return self._cookie(value.decode("latin-1")).encode("latin-1")
        return None if name in _DROPPED else value

    def _reference(self, reference: str) -> str:
        """RFC 3986 section 5: resolved as if from the service, then said from the door."""
        try:
            absolute = urljoin(self._url, reference)
            parts = urlsplit(absolute)
            host, port = parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)
        except ValueError:
            return reference  # no URL in anybody's reading; nothing leads anywhere
        if host is None or port is None or parts.username is not None:
            return reference
        name = self._find(parts.scheme, host, port)
        if name is None:
            return absolute
        rest = absolute[absolute.index("//") + 2 + len(parts.netloc) :]
        return f"{self._door}/to/{name}{_without_dots(rest if rest[:1] == '/' else '/' + rest)}"

    def _link(self, value: str) -> str:
        """RFC 8288 section 3: the references stand between angle brackets, and not within quoted parameters."""
        out: list[str] = []
        at, quoted = 0, False
        while at < len(value):
            char = value[at]
            if quoted:
                step = 2 if char == "\\" else 1
                quoted = char != '"'
                out.append(value[at : at + step])
                at += step
                continue
            end = value.find(">", at) if char == "<" else -1
            if end > 0:
                out.append(f"<{self._reference(value[at + 1 : end].strip())}>")
                at = end + 1
                continue
            quoted = char == '"'
            out.append(char)
            at += 1
        return "".join(out)

    def _cookie(self, value: str) -> str:
        """RFC 6265 section 5.2: no Domain widens it, the last Path counts, and without one the request's folder does
        (5.1.4); all of it under the connection's own path."""
        pair, *attributes = value.split(";")
        kept = [pair]
        path = ""
        for attribute in attributes:
            name, _, text = attribute.partition("=")
            match name.strip().lower():
                case "domain":
                    continue
                case "path":
                    path = text.strip()
                case _:
                    kept.append(attribute)
        if not path.startswith("/"):
            path = urlsplit(self._url).path.rpartition("/")[0]
        kept.append(f" Path=/to/{self._home}{path.rstrip('/')}")
        return ";".join(kept)


def _without_dots(rest: str) -> str:
    """RFC 3986 section 5.2.4, and every dot and slash that some client takes for one: the agent resolves what is left
    of them, and would leave the connection's own path."""
    path = _TAIL.split(rest, maxsplit=1)[0]
    segments = _SEPARATOR.split(path[1:])
    plain = [_ENCODED_DOT.sub(".", segment) for segment in segments]
    if "." not in plain and ".." not in plain:
        return rest
    kept: list[str] = []
    for segment, form in zip(segments, plain, strict=True):
        if form == "..":
            del kept[-1:]
        elif form != ".":
            kept.append(segment)
    if plain[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept) + rest[len(path) :]


def rewriter_for(journey: Journey, call: Call) -> Rewriter | None:
    """What leads a base-URL client's next request back to the door; None for everybody else."""
    exchange, policy, home = journey.exchange, journey.policy, journey.connection
    if exchange.presented is None or policy is None or home is None:
        return None

    def find(scheme: str, host: str, port: int) -> str | None:
        known = policy.connection_for(scheme, host, port)
        return None if known is None else known.name

    scheme = "https" if exchange.wire.secure else "http"
    own = (exchange.head.host or b"").decode("ascii")
    authority = format_authority(call.scheme, call.host, call.port).decode("ascii")
    return Rewriter(f"{scheme}://{own}", home.name, f"{call.scheme}://{authority}{call.path}", find)
