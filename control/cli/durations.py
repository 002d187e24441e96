"""Durations as people write them: `90s`, `5m`, `1h`."""

import re

import click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[int]):
    """Whole seconds, from a number and a unit."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is no duration; write 90s, 5m or 1h", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


def shown(seconds: int) -> str:
    """The duration in its largest whole unit."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"
