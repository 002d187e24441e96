"""What must hold of a policy's spikes: that somebody counts what each looks at, in what it is said in."""

from collections.abc import Iterator

from rules.meters.calls import CALLS
from rules.policy import values
from rules.policy.finding import Finding
from rules.policy.limit_models import LimitsDocument, Most, SpikeDocument
from rules.policy.models import TenantDocument
from rules.policy.reading import Location


def check_spikes(
    at: Location, limits: LimitsDocument, document: TenantDocument, account: str | None
) -> Iterator[Finding]:
    """Every finding in the spikes of an account, or of the tenant when None."""
    seen: dict[object, int] = {}
    for index, spike in enumerate(limits.spikes or ()):
        here = (*at, "spikes", index)
        if account is not None and spike.by is not None:
            yield Finding((*here, "by"), f"by: account: this is {account}'s alone", "remove by")
        yield from _counted(here, spike, limits, document, account)
        same = (spike.meter, _unit(spike.meter, spike.least), spike.per, spike.by is None, spike.then)
        if seen.setdefault(same, index) != index:
            yield Finding(here, f"a second {spike.then} per {spike.per} on {spike.meter}", "keep one of them")


def _counted(
    at: Location, spike: SpikeDocument, limits: LimitsDocument, document: TenantDocument, account: str | None
) -> Iterator[Finding]:
    if spike.meter == CALLS:  # every one is on record, whether a limit counts it or not
        if _unit(CALLS, spike.least) != CALLS or isinstance(spike.least, str):
            yield Finding((*at, "least"), "least: calls are counted", "write a whole number, such as 100")
        return
    whole = [] if document.limits is None else _units(document.limits, spike.meter)
    if account is None:
        each = [_units(one.limits, spike.meter) for one in document.accounts.values()]
        units = {*whole, *(set[str].intersection(*map(set, each)) if each else ())}
    else:
        units = {*whole, *_units(limits, spike.meter)}
    whose = "every account" if account is None else account
    if not units:
        message = f"meter: no spend limit of {whose} counts {spike.meter}, so nobody knows what it comes to"
        yield Finding((*at, "meter"), message, f"add a spend limit on {spike.meter}, or write calls")
    elif _unit(spike.meter, spike.least) not in units:
        message = f"least: the spend limits on {spike.meter} of {whose} count {', '.join(sorted(units))}"
        yield Finding((*at, "least"), message, f"write it in {min(units)}")


def _units(limits: LimitsDocument, meter: str) -> list[str]:
    return [_unit(meter, spend.max) for spend in limits.spend if spend.meter == meter]


def _unit(meter: str, most: Most) -> str:
    return most.currency if isinstance(most, values.Money) else meter
