"""The part of a policy's schema that is about limits, of an account and of a whole tenant."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator
from pydantic.json_schema import WithJsonSchema

from rules.limits.limit import ANY, BY
from rules.policy import values
from rules.policy.fields import ConnectionOrAny, Duration, Money, Name, ToolPattern
from rules.policy.invalid import ValueInvalid

MOST: Final = 9_000_000_000
"""Of anything: millionths of it stay below 2^53, which every reader of JSON and every store has exactly."""
LONGEST_WAIT: Final = 60
"""Seconds."""
_METER: Final = r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*"
_SIZE: Final = re.compile(r"([1-9][0-9]{0,9}) (kB|MB|GB|KiB|MiB|GiB)", re.ASCII)
_UNITS: Final = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TIMES: Final = re.compile(r"([1-9][0-9]{0,3})(?:\.([0-9]{1,2}))?x", re.ASCII)
LEAST_PERCENT: Final = 150
"""Of what is usual: every second window is above what is usual, and most of them by less than half."""
_PER_CENT: Final = re.compile(r"([1-9][0-9]?|100)%", re.ASCII)

type Most = values.Money | int | str
"""Money; a whole number; or a size as it is written."""


def bytes_of(most: Most) -> int | None:
    """How many bytes a size is; None for what is none."""
    found = _SIZE.fullmatch(most) if isinstance(most, str) else None
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def _parse_most(value: object) -> Most:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST:
            raise ValueInvalid("out of range", f"write at least 1 and at most {MOST}")
        return value
    if isinstance(value, str):
        size = bytes_of(value)
        if size is not None and size > MOST:
            raise ValueInvalid("out of range", "write at most 9 GB")
        if size is not None:
            return value
        if re.fullmatch(r"[0-9]+ ?[kmg]i?b?", value, re.ASCII | re.IGNORECASE):
            raise ValueInvalid("not a size", "write a whole number, a space and kB, MB or GB, such as 10 MB")
        return values.parse_money(value)
    raise ValueInvalid("not an amount", "write 5 USD for money, a whole number for what is counted, 10 MB for bytes")


def _write_most(most: Most) -> str | int:
    return str(most) if isinstance(most, values.Money) else most


def _check_meter(value: str) -> str:
    if len(value) > 128 or not re.fullmatch(_METER, value, re.ASCII):
        raise ValueInvalid("not the name of a meter", "write price, calls, bytes_out, a unit, or TOOL.amount")
    return value


def _parse_alert(value: object) -> list[int]:
    written = value if isinstance(value, list) else [value]
    found = [_PER_CENT.fullmatch(one) if isinstance(one, str) else None for one in written]
    levels = sorted({int(match[1]) for match in found if match is not None})
    if not written or None in found or len(levels) < len(written):
        raise ValueInvalid("not a share of the limit", "write 80%, or a list such as [50%, 80%]")
    return levels


def _write_alert(levels: list[int]) -> str | list[str]:
    written = [f"{level}%" for level in levels]
    return written[0] if len(written) == 1 else written


def _check_wait(seconds: int) -> int:
    if seconds > LONGEST_WAIT:
        raise ValueInvalid("too long", f"write at most {LONGEST_WAIT}s: agents and their libraries give up before")
    return seconds


def _parse_times(value: object) -> int:
    """How many per cent `5x` or `2.5x` are."""
    found = _TIMES.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueInvalid("not a multiple of what is usual", "write 5x, or 2.5x")
    percent = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))
    if percent < LEAST_PERCENT:
        raise ValueInvalid("so little above what is usual that it is usual", "write 1.5x or more, such as 5x")
    return percent


def write_times(percent: int) -> str:
    """As a policy writes it."""
    whole, rest = divmod(percent, 100)
    return f"{whole}{f'.{rest:02d}'.rstrip('0') if rest else ''}x"


def _parse_share(value: object) -> int:
    found = _PER_CENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueInvalid("not a share", "write a whole number from 1% to 100%, such as 25%")
    return int(found[1])


def _in_order(by: list[str]) -> list[str]:
    if len(set(by)) < len(by):
        raise ValueInvalid("the same word twice", "write it once")
    return sorted(by, key=BY.index)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


By = Annotated[
    list[Literal["account", "workflow", "run", "connection", "tool", "object"]],
    Field(
        min_length=1, max_length=6, description="One counter for each combination of these; one for all if left out."
    ),
    AfterValidator(_in_order),
]
Tools = Annotated[
    list[ToolPattern],
    Field(min_length=1, max_length=64, description="Tools, or beginnings of their names with .*"),
]
Limit = Annotated[
    Any,
    PlainValidator(_parse_most),
    PlainSerializer(_write_most, return_type=Any),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["5 USD", 500, "10 MB"]}),
]
Alert = Annotated[
    list[int],
    PlainValidator(_parse_alert),
    PlainSerializer(_write_alert, return_type=Any),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "pattern": f"^{_PER_CENT.pattern}$", "examples": ["80%"]},
                {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": f"^{_PER_CENT.pattern}$"}},
            ]
        }
    ),
]

Share = Annotated[
    int,
    PlainValidator(_parse_share),
    PlainSerializer(lambda share: f"{share}%", return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_PER_CENT.pattern}$", "examples": ["25%"]}),
]


class QueueDocument(_Document):
    """Calls that find no slot wait for one."""

    max: int = Field(ge=1, le=1_000, description="Calls that wait at once; one more is refused.")
    wait: Annotated[Duration, AfterValidator(_check_wait)] = Field(description="The longest wait, at most 60s.")


Times = Annotated[
    int,
    PlainValidator(_parse_times),
    PlainSerializer(write_times, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_TIMES.pattern}$", "examples": ["5x", "2.5x"]}),
]


class ConcurrencyDocument(_Document):
    """So many calls in flight at once."""

    max: int = Field(ge=1, le=10_000)
    queue: QueueDocument | None = Field(default=None, description="A call that finds no slot is refused if left out.")
    connection: ConnectionOrAny | None = Field(default=None, description="All of them together when left out.")
    tools: Tools | None = None
    by: By | None = None


class RateDocument(_Document):
    """So many calls in a period, and so many at once."""

    connection: ConnectionOrAny | None = Field(
        default=None, description="A connection, or * for all of them together; may be left out beside tools."
    )
    tools: Tools | None = None
    max: int = Field(ge=1, le=1_000_000)
    per: Literal["second", "minute", "hour", "day"]
    burst: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Calls at once; the same as max if left out."
    )
    by: By | None = None


class OverDocument(_Document):
    """What a call beyond the limit needs."""

    approve: Name = Field(description="The role that is asked. There are no approvals yet: such a call is refused.")
    hard: Money = Field(description="What no approval goes beyond.")


class SpendDocument(_Document):
    """An amount that a window's calls may use together."""

    meter: Annotated[
        str,
        AfterValidator(_check_meter),
        Field(examples=["price", "stripe.refund.create.amount", "recipients", "bytes_out", "calls"]),
    ] = Field(description="What is counted.")
    max: Limit = Field(description="Money for price and amounts, a whole number or a size for what is counted.")
    per: Literal["hour", "day", "month", "run"] = Field(
        description="Hours, days and months by the calendar, in the policy's time zone; or one run."
    )
    by: By | None = None
    alert: Alert | None = Field(default=None, description="Shares of max at which somebody wants to hear of it.")
    over: OverDocument | None = None


class SpikeDocument(_Document):
    """What is taken for unusual, by the account's own past. No cap: it is seen in the ledger, after the calls."""

    meter: Annotated[str, AfterValidator(_check_meter), Field(examples=["price", "calls"])] = Field(
        description="What is counted: calls, or what a spend limit counts too."
    )
    per: Literal["hour", "day"] = Field(description="What is compared, by the calendar in the policy's time zone.")
    over: Times = Field(description="How many times of what is usual for the account is a spike.")
    least: Limit = Field(description="Below it nothing is a spike.")
    by: Annotated[list[Literal["account"]], Field(min_length=1, max_length=1)] | None = Field(
        default=None, description="In a tenant's limits: each account by its own past; all together when left out."
    )
    then: Literal["alert", "stop"] = Field(
        default="alert", description="Tell somebody; or refuse the account's calls too, until an operator resumes it."
    )


def _one_for_all(value: object) -> object:
    return [{"max": value}] if isinstance(value, int) and not isinstance(value, bool) else value


def _write_concurrency(limits: list[ConcurrencyDocument] | None) -> object:
    if limits is None:
        return None
    written = [limit.model_dump(mode="json", exclude_none=True) for limit in limits]
    return written[0]["max"] if len(written) == 1 and written[0].keys() == {"max"} else written


class LimitsDocument(_Document):
    """What an account may use, or all accounts of a tenant together."""

    concurrency: Annotated[
        list[ConcurrencyDocument] | None,
        BeforeValidator(_one_for_all, json_schema_input_type=int | list[ConcurrencyDocument] | None),
        PlainSerializer(_write_concurrency, return_type=Any),
    ] = Field(default=None, min_length=1, max_length=64, description="Calls in flight at once.")
    rate: list[RateDocument] = Field(default=[], max_length=256)
    spend: list[SpendDocument] = Field(default=[], max_length=16)
    spikes: list[SpikeDocument] | None = Field(
        default=None, min_length=1, max_length=16, description="What is unusual by the account's own past."
    )


class WhenUnavailableDocument(_Document):
    """What is granted while the counters that several workers share cannot be asked."""

    local: Share = Field(description="The share of every limit that control grants by itself meanwhile.")


class TenantLimitsDocument(LimitsDocument):
    """What all accounts of a tenant may use together."""

    when_unavailable: WhenUnavailableDocument | None = Field(
        default=None, description="Calls that need a limit are refused when left out."
    )


__all__ = [
    "ANY",
    "ConcurrencyDocument",
    "LimitsDocument",
    "OverDocument",
    "QueueDocument",
    "RateDocument",
    "SpendDocument",
    "SpikeDocument",
    "TenantLimitsDocument",
    "WhenUnavailableDocument",
    "bytes_of",
    "write_times",
]
