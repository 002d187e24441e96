"""What limits can count. A new meter is one file and one line here; the last one takes what no other is."""

from typing import Final

from rules.meters import amount, bytes_out, calls, price, tokens, units
from rules.meters.meter import Meter

METERS: Final[tuple[Meter, ...]] = (price.METER, calls.METER, tokens.METER, bytes_out.METER, amount.METER, units.METER)


def meter_named(name: str) -> Meter:
    """The meter that a limit means."""
    return next(meter for meter in METERS if meter.means(name))
