"""What must hold of a policy's alert destinations, beyond the schema of each."""

from collections.abc import Iterator

from rules.alerts.destination import LOG
from rules.policy.alert_models import AlertDocument, place_of
from rules.policy.finding import Finding
from rules.policy.hosts import literal_address
from rules.policy.models import TenantDocument
from rules.policy.reading import Location


def check_alerts(document: TenantDocument) -> Iterator[Finding]:
    """Every finding in a tenant's alert destinations."""
    for name, alert in (document.alerts or {}).items():
        at: Location = ("alerts", name)
        if name == LOG:
            yield Finding(at, f"{name}: the log has all alerts in any case", "choose another name", at_key=True)
        if len(alert.kinds) != 1:
            said = "says nothing of where it is" if not alert.kinds else f"is {' and '.join(alert.kinds)} at once"
            yield Finding(at, f"{name} {said}", "write one of webhook, slack and syslog", at_key=True)
            continue
        yield from _secret(at, name, alert)
        yield from _place(at, alert)
        if alert.ca is not None and alert.extra_ca is not None:
            yield Finding(
                (*at, "extra_ca"), "extra_ca: means nothing beside ca, which replaces the public authorities",
                "keep one of them; put all certificates into its file",
            )  # fmt: skip
        if alert.dial is not None and alert.networks is not None:
            yield Finding((*at, "networks"), "networks: means nothing beside dial", "remove networks or dial")


def _secret(at: Location, name: str, alert: AlertDocument) -> Iterator[Finding]:
    if alert.webhook is not None and alert.secret is None:
        key = f"alerts/{name}"
        fix = f"add secret: {key}, and set it: echo whsec_$(openssl rand -base64 32) | exeat secret set {key}"
        yield Finding((*at, "webhook"), "webhook: nothing signs what is sent", fix)
    if alert.webhook is None and alert.secret is not None:
        yield Finding((*at, "secret"), "secret: only webhooks are signed", "remove it")


def _place(at: Location, alert: AlertDocument) -> Iterator[Finding]:
    url = alert.webhook or alert.syslog
    if url is None:
        return
    key = "webhook" if alert.webhook is not None else "syslog"
    transport, host, _, _ = place_of(url)
    address = literal_address(host)
    if transport == "http" and (address is None or not address.is_loopback):
        yield Finding((*at, key), f"{key}: http sends alerts readable", "use https; http is for a loopback address")
    if transport not in ("https", "tls"):
        for name in ("ca", "extra_ca"):
            if getattr(alert, name) is not None:
                fix = f"remove {name}, or use {'https' if transport == 'http' else 'tls'}"
                yield Finding((*at, name), f"{name}: {transport} has no certificate to verify", fix)
    inside = address is not None and any(address in network for network in alert.networks or ())
    if address is not None and not address.is_global and not inside and alert.dial is None:
        yield Finding((*at, key), f"{key}: {address} is a private address", f"add networks: [{address}]")
