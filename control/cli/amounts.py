"""Amounts as people read them."""


def shown_amount(micros: int, unit: str) -> str:
    """`USD 12.40`, or `1200 tokens`: micro-units of a currency or of what is counted."""
    whole, rest = divmod(micros, 1_000_000)
    fraction = f"{rest:06d}".rstrip("0")
    if is_money(unit):
        # Two digits at least, as prices are written; up to six where a price is smaller than that.
        return f"{unit} {whole}.{fraction.ljust(2, '0')}"
    return f"{whole}.{fraction} {unit}" if fraction else f"{whole} {unit}"


def is_money(unit: str) -> bool:
    """Whether a unit is a currency and not what is counted."""
    return len(unit) == 3 and unit.isascii() and unit.isupper()


def share(part: int, whole: int) -> str:
    """`4 %`; a share that is not nothing is never shown as nothing."""
    if not part or not whole:
        return "-"
    per_cent = 100 * part // whole
    return f"{per_cent} %" if per_cent else "< 1 %"
