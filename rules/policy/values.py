"""The small values of a policy: names, money, durations, methods, presentations. Text in, typed out, never a float."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from credentials.presentation import Basic, Bearer, Header, Presentation, PresentationInvalid
from rules.bodies import INSPECTED, Handling
from rules.policy.invalid import ValueInvalid
from rules.services import NAMES

NAME: Final = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
"""Tenants, accounts, connections, roles and rules. They are parts of keys joined by `/`, of URLs and of file names."""
REFERENCE: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,3}"
MONEY: Final = r"(0|[1-9][0-9]{0,8})(?:\.([0-9]{1,6}))? ([A-Z]{3})"
"""Below a thousand million, so that millionths stay below 2^53: every reader of JSON keeps them exact."""
DURATION: Final = r"([1-9][0-9]{0,6})(s|m|h|d)"
HELD_BYTES: Final = 1 << 20
"""Bodies up to this size are held and digested before the intent, whatever a rule says."""
SIZE: Final = r"([1-9][0-9]{0,5}) (KiB|MiB|GiB)"
"""At most a million of the largest unit is far beyond what any service takes in one request."""
EMAIL: Final = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}"
KEY_HASH: Final = r"sha256:[0-9a-f]{64}"

MAX_TOKENS: Final = 10_000_000
"""Of one answer; beyond any model's."""

METHODS: Final = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
    # RFC 4918, 3253, 3744, 5323: WebDAV, spoken by calendars, contacts and file shares
    *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "MKCALENDAR", "ACL"),
)
"""Methods that a rule may name. CONNECT and TRACE are never forwarded."""

_BYTES: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in millionths of a currency's unit."""

    micros: int
    currency: str
    """ISO 4217 letters; not checked against the list, a currency is only ever compared."""

    def __str__(self) -> str:
        whole, rest = divmod(self.micros, 1_000_000)
        fraction = f"{rest:06d}".rstrip("0")
        return f"{whole}.{fraction} {self.currency}" if fraction else f"{whole} {self.currency}"


@dataclass(frozen=True, slots=True)
class Booked:
    """In place of a price: what a call used costs, at the prices of a book."""

    book: str
    max_tokens: int | None = None
    """Tokens that an answer is set aside for, where a request does not say how many it may have."""


def suggest(word: str, known: tuple[str, ...]) -> str:
    """The fix for a word that is none of `known`: the nearest of them, or all of them."""
    near = get_close_matches(word.lower(), [k.lower() for k in known], n=1, cutoff=0.6)
    if near:
        return f"did you mean {next(k for k in known if k.lower() == near[0])}?"
    return f"known here: {', '.join(known)}" if known else "none is declared"


def check_name(value: str) -> str:
    """The name itself, if it is one."""
    if not re.fullmatch(NAME, value, re.ASCII):
        raise ValueInvalid(
            "not a name", "use 1 to 63 lower-case letters, digits, - and _, with a letter or digit at both ends"
        )
    return value


def check_secret_name(value: str) -> str:
    """The secret's name itself. A refusal never quotes it: it may be the secret, pasted into the wrong place."""
    if len(value) > 128 or not re.fullmatch(REFERENCE, value, re.ASCII):
        raise ValueInvalid(
            "not the name of a secret",
            "write a name such as zendesk/prod; the value goes into `exeat secret set`, never into a policy",
        )
    return value


def check_key_hash(value: str) -> str:
    """The hash of a public key itself, if it is written as one."""
    if not re.fullmatch(KEY_HASH, value, re.ASCII):
        raise ValueInvalid(
            "not the hash of a public key",
            "write sha256: and the 64 lower-case hex digits that this prints: "
            "openssl x509 -in ca.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum",
        )
    return value


def check_service_name(value: str) -> str:
    """The service's name itself, if it can be one; whether there is such a service the whole policy says."""
    if len(value) > 64 or not re.fullmatch(r"[a-z][a-z0-9-]*(?:\.[a-z0-9][a-z0-9_-]*)?", value, re.ASCII):
        raise ValueInvalid("not the name of a service", f"{suggest(value, NAMES)} Or leave service out")
    return value


def check_email(value: str) -> str:
    """The mail address itself, if it looks like one."""
    if len(value) > 254 or not re.fullmatch(EMAIL, value, re.ASCII):
        raise ValueInvalid("not a mail address", "write a person or a team that answers, such as ana@acme.example")
    return value


def check_method(value: str) -> str:
    """The method itself, if a rule may name it."""
    if value in METHODS:
        return value
    if value.upper() in METHODS:
        raise ValueInvalid("methods are upper-case", f"write {value.upper()}")
    if value == "*":
        raise ValueInvalid("there is no wildcard method", "leave `methods` out to mean all of them")
    raise ValueInvalid("not a method that is forwarded", suggest(value, METHODS))


def parse_money(value: object) -> Money:
    """The amount that `0.002 USD` names, exactly."""
    match = re.fullmatch(MONEY, value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str) and re.fullmatch(MONEY, value.upper().strip(), re.ASCII):
            raise ValueInvalid("not an amount of money", f"write {value.upper().strip()}")
        raise ValueInvalid(
            "not an amount of money",
            "write a number below 1000000000, at most six decimals, a space and a currency, such as 0.002 USD",
        )
    whole, fraction, currency = match.groups()
    return Money(int(whole) * 1_000_000 + int((fraction or "").ljust(6, "0")), currency)


def parse_price(value: object) -> Money | Booked:
    """What one call costs: an amount, or by a price book."""
    if not isinstance(value, dict):
        return parse_money(value)
    unknown = value.keys() - {"book", "max_tokens"}
    if unknown or not isinstance(value.get("book"), str):
        raise ValueInvalid("neither an amount nor a price book", "write 0.002 USD, or {book: openai}")
    most = value.get("max_tokens")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MAX_TOKENS):
        raise ValueInvalid("max_tokens is out of range", f"write a whole number from 1 to {MAX_TOKENS}")
    return Booked(check_name(value["book"]), most)


def write_price(price: Money | Booked) -> object:
    """As a policy writes it."""
    if isinstance(price, Money):
        return str(price)
    return {"book": price.book} | ({} if price.max_tokens is None else {"max_tokens": price.max_tokens})


def parse_duration(value: object) -> int:
    """Seconds of `30s`, `5m`, `1h`, `1d`."""
    match = re.fullmatch(DURATION, value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        fix = (
            f"write {value}s, or use m, h, d"
            if isinstance(value, int)
            else "write a number and s, m, h or d, such as 5m"
        )
        raise ValueInvalid("not a duration", fix)
    return int(match[1]) * _SECONDS[match[2]]


def write_duration(seconds: int) -> str:
    """The shortest text that `parse_duration` reads as `seconds`."""
    unit = next(u for u in ("d", "h", "m", "s") if seconds % _SECONDS[u] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def parse_keep(value: object) -> int:
    """Seconds of `30d`, a day at the least, ten years at the most; 0 for `none`."""
    if value == "none":
        return 0
    seconds = parse_duration(value)
    if not _SECONDS["d"] <= seconds <= 3660 * _SECONDS["d"]:
        raise ValueInvalid("less than a day, or more than ten years", "write a number of days, such as 30d, or none")
    return seconds


def write_keep(seconds: int) -> str:
    """The shortest text that `parse_keep` reads as `seconds`."""
    return write_duration(seconds) if seconds else "none"


def parse_size(value: object) -> int:
    """Bytes of `64 KiB`, `500 MiB`, `2 GiB`."""
    match = re.fullmatch(SIZE, value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        fix = "write a whole number, a space and KiB, MiB or GiB, such as 500 MiB"
        if isinstance(value, str) and (near := re.fullmatch(r"([1-9][0-9]{0,5}) ?([KMG])i?B?", value, re.IGNORECASE)):
            fix = f"write {near[1]} {near[2].upper()}iB"
        raise ValueInvalid("not a size", fix)
    return int(match[1]) * _BYTES[match[2]]


def write_size(size: int) -> str:
    """The text in the largest unit that `parse_size` reads as `size` bytes."""
    unit = next(u for u in ("GiB", "MiB", "KiB") if size % _BYTES[u] == 0)
    return f"{size // _BYTES[unit]} {unit}"


def parse_body(value: object) -> Handling:
    """The handling that `inspect` or `{stream: 500 MiB}` names."""
    match value:
        case "inspect":
            return INSPECTED
        case {"stream": size, **rest} if not rest:
            stream_bytes = parse_size(size)
            if stream_bytes <= HELD_BYTES:
                raise ValueInvalid("a body of that size is held anyway", "write more than 1 MiB, or leave body out")
            return Handling(stream_bytes=stream_bytes)
        case _:
            raise ValueInvalid("not a way to treat a body", "write inspect or {stream: 500 MiB}, or leave body out")


def write_body(handling: Handling) -> str | dict[str, str]:
    """The handling as a policy writes it; `parse_body` gives it back."""
    return "inspect" if handling.stream_bytes is None else {"stream": write_size(handling.stream_bytes)}


def parse_present(value: object) -> Presentation:
    """The presentation that `bearer`, `{basic: user}` or `{header: X-Api-Key, prefix: "Token "}` names."""
    try:
        match value:
            case "bearer":
                return Bearer()
            case {"basic": str(user), **rest} if not rest:
                return Basic(user)
            case {"header": str(name), "prefix": str(prefix), **rest} if not rest:
                return Header(name, prefix)
            case {"header": str(name), **rest} if not rest:
                return Header(name)
            case _:
                pass
    except PresentationInvalid as error:
        raise ValueInvalid(str(error), "see the service's documentation for where its key goes") from None
    raise ValueInvalid(
        "not a way to present a secret", 'write bearer, {basic: user} or {header: X-Api-Key, prefix: "Token "}'
    )


def write_present(present: Presentation) -> str | dict[str, str]:
    """The presentation as a policy writes it; `parse_present` gives it back."""
    match present:
        case Basic(user):
            return {"basic": user}
        case Header(name, ""):
            return {"header": name}
        case Header(name, prefix):
            return {"header": name, "prefix": prefix}
        case _:
            return present.kind


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def check_timezone(value: str) -> str:
    """The zone's name itself, if the machine's zone database has it."""
    if value not in _zones():
        raise ValueInvalid("not a time zone", suggest(value, tuple(sorted(_zones()))) if _zones() else "install tzdata")
    return value


def zone(name: str) -> ZoneInfo:
    """The zone of a name that `check_timezone` returned."""
    return ZoneInfo(name)
