"""Amounts as people read them."""


def amount(micros: int, currency: str) -> str:
    """`0.002 USD`; `12` of what is no money."""
    whole, rest = divmod(micros, 1_000_000)
    decimals = f"{rest:06d}".rstrip("0")
    if not currency:
        return f"{whole}.{decimals}" if decimals else str(whole)
    return f"{whole}.{decimals:0<2} {currency}"


def amount_of(micros: int, unit: str) -> str:
    """`12.40 USD`, or `1200 tokens`: of a currency or of what is counted."""
    money = len(unit) == 3 and unit.isascii() and unit.isupper()
    return amount(micros, unit) if money else f"{amount(micros, '')} {unit}"


def share(part: int, whole: int) -> str:
    """`4 %`; a share that is not nothing is never shown as nothing."""
    if not part or not whole:
        return "-"
    per_cent = 100 * part // whole
    return f"{per_cent} %" if per_cent else "< 1 %"
