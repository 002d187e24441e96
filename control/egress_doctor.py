"""Whether a program has a way out that is not Exeat: every way is tried from where the program runs.

The result is a value of what was seen there, once. It says nothing of ways that nobody thought of, and it has no
authority: an agent could have written it. On record it gets by an operator's own act, who says with it: I made this.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from control import egress_local as local
from control.doctor import PROBE_HOST
from control.egress_ways import PUBLIC, Outcome, Target, Way, parse_target, try_way
from control.operations import WrongUse
from control.relay_head import encode_basic
from control.remote import SOCKET_NAME

FORMAT: Final = "exeat-egress/v1"
DOOR_SECONDS: Final = 10.0
MAX_WAYS: Final = 2000
MAX_RESULT_BYTES: Final = 1024 * 1024
MAX_AGE: Final = timedelta(days=1)
"""Older than this, a result is no news of where agents run now."""


@dataclass(frozen=True, slots=True)
class Door:
    """Whether Exeat itself could be reached from there: without that, nothing else says anything."""

    reached: bool
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """What one probe has seen."""

    at: datetime
    host: str
    uid: int
    run: str | None
    defaults: bool
    """True when the default targets and what the machine names were tried, not only what was asked for."""
    door: Door
    ways: tuple[Way, ...]

    def counted(self) -> Counter[Outcome]:
        """How many ways ended how."""
        return Counter(way.outcome for way in self.ways)

    @property
    def verdict(self) -> str:
        """`meaningless` without the door, else `open` or `nothing open`."""
        if not self.door.reached:
            return "meaningless"
        return "open" if self.counted()[Outcome.OPEN] else "nothing open"

    def to_json(self) -> dict[str, object]:
        """The result as plain values; `exeat-egress/v1`."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "at": self.at.isoformat(),
            "host": self.host,
            "uid": self.uid,
            "run": self.run,
            "defaults": self.defaults,
            "door": {"reached": self.door.reached, "text": self.door.text},
            "ways": [
                {"kind": way.kind, "target": way.target, "outcome": str(way.outcome), "text": way.text}
                for way in self.ways
            ],
        }


async def probe(
    environment: Mapping[str, str], state: Path, targets: tuple[Target, ...], *, defaults: bool, seconds: float
) -> Result:
    """Every way is tried, those of a kind at once; each for at most `seconds`."""
    wanted = list(targets)
    if defaults:
        wanted += [parse_target(text) for text in PUBLIC]
        named = [*local.resolvers(), *local.gateways(), *local.cluster(environment)]
        # Exeat may listen on the gateway of an agent's network, and is no way around itself.
        wanted += [target for target in named if (target.host, target.port) != local.door_of(environment)]
    door_task = asyncio.create_task(_door(environment))
    tried = await asyncio.gather(*(try_way(target, seconds) for target in dict.fromkeys(wanted)))
    ways = [*tried, *local.variables(environment), *await local.gate_secrets(state, seconds), local.privileges()]
    if defaults:
        powers = await local.powers(environment, seconds)
        known = {way.target.partition(" (")[0] for way in powers} | {str(state / SOCKET_NAME)}
        others, listeners = await asyncio.gather(
            local.found_sockets(known, seconds), local.listeners(local.door_of(environment), seconds)
        )
        ways += [*powers, *others, *listeners, *local.devices()]
    else:
        ways.append(Way("defaults", "all", Outcome.NOT_TRIED, "only what was named was to be tried"))
    return Result(
        at=datetime.now(UTC),
        host=socket.gethostname(),
        uid=os.geteuid(),
        run=environment.get("EXEAT_RUN"),
        defaults=defaults,
        door=await door_task,
        ways=tuple(ways),
    )


async def _door(environment: Mapping[str, str]) -> Door:
    """A request for a name that nobody has, through the door: Exeat answers for it itself and dials nobody.

    Its certificate is verified with the run's bundle, so that no other proxy passes for it.
    """
    url = urlsplit(environment.get("HTTPS_PROXY", ""))
    bundle = environment.get("SSL_CERT_FILE")
    if local.door_of(environment) is None or not bundle:
        return Door(False, "HTTPS_PROXY or SSL_CERT_FILE is not set: start this with `exeat run` or `exeat env`")
    login = encode_basic(unquote(url.username or ""), unquote(url.password or "").encode())
    try:
        context = ssl.create_default_context(cafile=bundle)
        context.set_alpn_protocols(["http/1.1"])
        async with asyncio.timeout(DOOR_SECONDS):
            outer = context if url.scheme == "https" else None
            reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=outer)
            try:
                return await _asked(reader, writer, login, context)
            finally:
                with contextlib.suppress(OSError):
                    writer.transport.abort()
    except ssl.SSLCertVerificationError as error:
        return Door(False, f"its certificate is not trusted: {error.verify_message}")
    except TimeoutError:
        return Door(False, f"no answer in {DOOR_SECONDS:g} s from {url.hostname}:{url.port}")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, UnicodeError) as error:
        return Door(False, f"no answer from {url.hostname}:{url.port}: {error}")


async def _asked(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, login: bytes, context: ssl.SSLContext
) -> Door:
    host = PROBE_HOST.encode("ascii")
    writer.write(b"CONNECT %b:443 HTTP/1.1\r\nHost: %b:443\r\nProxy-Authorization: %b\r\n\r\n" % (host, host, login))
    head = await reader.readuntil(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        return Door(False, f"it answered {_shown(head)}, not a tunnel")
    await writer.start_tls(context, server_hostname=PROBE_HOST)
    writer.write(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host)
    answer = await reader.readuntil(b"\r\n\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in answer.splitlines())}
    code = fields.get(b"exeat-code")
    if code is None:
        return Door(False, f"it answered {_shown(answer)}, without a code of Exeat's")
    return Door(True, f"reached and trusted; it answered {_shown(answer)}, {code.decode('ascii', 'replace')}")


def _shown(head: bytes) -> str:
    return head.split(b"\r\n", 1)[0].decode("ascii", "backslashreplace")[:80]


# A result that somebody brings


Line = Annotated[str, StringConstraints(max_length=1000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _WayRead(_Strict):
    kind: Line
    target: Line
    outcome: Outcome
    text: Line


class _DoorRead(_Strict):
    reached: bool
    text: Line


class _ResultRead(_Strict):
    format: Literal["exeat-egress/v1"]
    verdict: Line
    at: AwareDatetime
    host: Line
    uid: int
    run: Line | None
    defaults: bool
    door: _DoorRead
    ways: Annotated[list[_WayRead], Field(max_length=MAX_WAYS)]


def parse_result(data: bytes, now: datetime) -> Result:
    """The result as `--json` printed it. Raises `WrongUse` for anything else, and for one that is not recent."""
    if len(data) > MAX_RESULT_BYTES:
        raise WrongUse("this is larger than a result can be", "Give what `exeat doctor egress --json` printed.")
    try:
        read = _ResultRead.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise WrongUse(
            f"this is no result of a probe: {where}: {first['msg']}",
            "Give what `exeat doctor egress --json` printed.",
        ) from None
    ways = tuple(Way(way.kind, way.target, way.outcome, way.text) for way in read.ways)
    door = Door(read.door.reached, read.door.text)
    result = Result(read.at, read.host, read.uid, read.run, read.defaults, door, ways)
    if not result.ways or read.verdict != result.verdict:
        raise WrongUse("its verdict is not that of its ways", "Give what `exeat doctor egress --json` printed, whole.")
    if not now - MAX_AGE <= result.at <= now + timedelta(minutes=5):
        raise WrongUse(f"it is of {result.at:%Y-%m-%d %H:%M} UTC, not of the last day", "Probe again.")
    return result


def for_the_ledger(result: Result, data: bytes) -> dict[str, str]:
    """The detail of an operator's act: the counts, what was open, and a digest of the whole text."""
    counts = result.counted()
    opened = ", ".join(f"{way.kind} {way.target}" for way in result.ways if way.outcome is Outcome.OPEN)
    detail = {
        "result": result.verdict,
        "open": str(counts[Outcome.OPEN]),
        "closed": str(counts[Outcome.CLOSED]),
        "unclear": str(counts[Outcome.UNCLEAR]),
        "not_tried": str(counts[Outcome.NOT_TRIED]),
        "targets": "default" if result.defaults else "named",
        "at": result.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "host": result.host,
        "uid": str(result.uid),
        "run": result.run or "",
        "opened": opened if len(opened) <= 1000 else opened[:997] + "...",
        "sha256": sha256(data).hexdigest(),
    }
    return {name: _one_line(value) for name, value in detail.items()}


def _one_line(text: str) -> str:
    """A result comes from an agent's side: nothing of it breaks a line or turns one around."""
    return "".join(char if char.isprintable() else "?" for char in text)
