"""Amounts of money in conditions: `usd(100)`, and the currencies that can be written so (ISO 4217).

An amount is a whole number of millionths. `usd(100)` stands for the number that 100 dollars are, and has no value where
the call is about another currency: comparing yen with it cannot be told, it is not merely false.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_TWO: Final = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP"
    " CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR"
    " IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN"
    " NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP"
    " STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD YER ZAR ZMW"
)
_OTHERS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
}
EXPONENTS: Final[Mapping[str, int]] = MappingProxyType(
    {code: digits for digits, codes in {2: _TWO, **_OTHERS}.items() for code in codes.split()}
)
"""How many decimals the smallest unit of a currency is: 2 for cents."""

_AMOUNT: Final = re.compile(
    r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?<![\w.])([a-z]{3})\(\s*([0-9]{1,9})(?:\.([0-9]{1,6}))?\s*\)""", re.ASCII
)
_PREFIX: Final = "_one_micro_"


def unit_of(currency: str) -> str:
    """The name of the variable that is 1 where a call is about this currency, and has no value elsewhere."""
    return _PREFIX + currency.lower()


def written_out(text: str) -> tuple[str, frozenset[str]]:
    """The condition with each `usd(100)` as the product it stands for, and the currencies that it names."""
    named: set[str] = set()

    def product(match: re.Match[str]) -> str:
        currency = (match[2] or "").upper()
        if currency not in EXPONENTS:
            return match[0]
        named.add(currency)
        micros = int(match[3]) * 1_000_000 + int((match[4] or "").ljust(6, "0"))
        return f"({micros} * {unit_of(currency)})"

    return _AMOUNT.sub(product, text), frozenset(named)


def micros(amount: int, unit: str, exponent: int) -> int | None:
    """An amount in the unit that a service counts in, in millionths; None where that is none or less."""
    match unit:
        case "minor":
            found = amount * 10 ** (6 - exponent)
        case "major":
            found = amount * 1_000_000
        case _:
            found = amount
    return found if 0 <= found < 2**63 else None
