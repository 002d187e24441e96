"""The part of a policy's schema that is about alerts: where they go."""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator
from pydantic.json_schema import WithJsonSchema

from rules.alerts.destination import DEFAULT_PORTS, SLACK, SYSLOG, WEBHOOK, AlertDestination
from rules.policy import values
from rules.policy.addresses import parse_dial
from rules.policy.fields import Authority, Dial, Network, SecretName
from rules.policy.hosts import normalise_host
from rules.policy.invalid import ValueInvalid

MOST_KEYS: Final = 4
_URL: Final = re.compile(r"([a-z]+)://([^/?#]+)([/?#].*)?", re.DOTALL)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,1023}", re.ASCII)
_EXAMPLES: Final = {"https": "https://hooks.acme.example/exeat", "tls": "tls://siem.acme.example:6514"}


def place_of(url: str) -> tuple[str, str, int, str]:
    """Transport, host, port and path of an address that the schema has let through, or raises `ValueInvalid`."""
    found = _URL.fullmatch(url)
    if found is None or found[1] not in DEFAULT_PORTS:
        raise ValueInvalid("not an address", f"write {_EXAMPLES['https']} or {_EXAMPLES['tls']}")
    scheme, authority, path = found[1], found[2], found[3] or ""
    if "@" in authority:
        raise ValueInvalid("a user or a password in an address", "leave it out; what is secret goes into `secret`")
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, ""
    number = (
        int(port) if re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) else 0 if colon and port else DEFAULT_PORTS[scheme]
    )
    if not 0 < number < 65536 or (colon and not port and not authority.endswith("]")):
        raise ValueInvalid("not a port", "write a number from 1 to 65535, or leave the port out")
    if "?" in path or "#" in path:
        raise ValueInvalid("a query in an address", "write the address up to its path; a secret one goes into `slack`")
    return scheme, normalise_host(host), number, path


def _address(*transports: str) -> Any:
    def check(value: str) -> str:
        scheme, host, port, path = place_of(value)
        if scheme not in transports:
            raise ValueInvalid(f"not {' or '.join(transports)}", f"write {_EXAMPLES[transports[0]]}")
        if transports[0] == "https":
            if path and not _PATH.fullmatch(path):
                raise ValueInvalid("not a path", "percent-encode what is not a letter, a digit or punctuation")
        elif path:
            raise ValueInvalid("a path where there is none", f"write {_EXAMPLES[transports[0]]}")
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme}://{shown}{'' if port == DEFAULT_PORTS[scheme] else f':{port}'}{path}"

    return AfterValidator(check)


def _names(value: object) -> list[str]:
    written = value if isinstance(value, list) else [value]
    names = [values.check_secret_name(one) for one in written if isinstance(one, str)]
    if len(names) < len(written) or not 1 <= len(names) <= MOST_KEYS or len(set(names)) < len(names):
        raise ValueInvalid(
            "not the names of secrets", f"write one name, or a list of at most {MOST_KEYS} different ones"
        )
    return names


def _write_names(names: list[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else names


Keys = Annotated[
    list[str],
    PlainValidator(_names),
    PlainSerializer(_write_names, return_type=Any),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "pattern": f"^{values.REFERENCE}$", "examples": ["alerts/ops"]},
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MOST_KEYS,
                    "items": {"type": "string", "pattern": f"^{values.REFERENCE}$"},
                },
            ]
        }
    ),
]


class AlertDocument(BaseModel):
    """A destination of a tenant's alerts: a webhook, a Slack hook, or a syslog receiver."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"oneOf": [{"required": [kind]} for kind in (WEBHOOK, SLACK, SYSLOG)]},
    )

    webhook: Annotated[str, _address("https", "http")] | None = Field(
        default=None, description="Takes signed JSON (Standard Webhooks).", examples=[_EXAMPLES["https"]]
    )
    slack: SecretName | None = Field(
        default=None, description="The secret whose value is the whole address of a Slack-compatible hook."
    )
    syslog: Annotated[str, _address("tls", "tcp", "udp")] | None = Field(
        default=None, description="Takes RFC 5424 over TLS, TCP or UDP.", examples=[_EXAMPLES["tls"]]
    )
    secret: Keys | None = Field(
        default=None, description="What a webhook is signed with; several while one key follows another."
    )
    dial: Dial | None = Field(default=None, description="Literal address to dial in place of what DNS says.")
    networks: list[Network] | None = Field(
        default=None, min_length=1, max_length=64, description="Private networks that its addresses may lie in."
    )
    ca: Authority | None = Field(
        default=None, description="PEM file beside the policy; it is verified against it and nothing else."
    )
    extra_ca: Authority | None = Field(
        default=None, description="PEM file beside the policy, trusted beside the public authorities."
    )
    installation: bool = Field(
        default=False, description="It hears what concerns the whole installation too, such as a halted ledger."
    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it says it is; a valid one says one thing."""
        return tuple(kind for kind in (WEBHOOK, SLACK, SYSLOG) if getattr(self, kind) is not None)


def destination_of(
    tenant: str, name: str, document: AlertDocument, ca_pem: str | None, denied_keys: frozenset[str]
) -> AlertDestination:
    """The destination, compiled; the document has been checked."""
    kind = document.kinds[0]
    transport, host, port, path = "https", "", 0, ""
    url = document.webhook or document.syslog
    if url is not None:
        transport, host, port, path = place_of(url)
    dial = None
    if document.dial is not None:
        address, dial_port = parse_dial(document.dial)
        dial = (str(address), dial_port or port)
    return AlertDestination(
        tenant=tenant,
        name=name,
        kind=kind,
        transport=transport,
        host=host,
        port=port,
        path=(path or "/") if kind == WEBHOOK else "",
        secrets=(document.slack,) if document.slack is not None else tuple(document.secret or ()),
        dial=dial,
        networks=tuple(document.networks or ()),
        ca_pem=ca_pem,
        ca_added=document.extra_ca is not None,
        denied_keys=denied_keys,
        installation=document.installation,
    )
