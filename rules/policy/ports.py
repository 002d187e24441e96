"""Ports on which no HTTP is spoken: naming one in a connection is a mistake, or an attempt to speak to something else.

A request that a line-based protocol reads as commands is an old way from an HTTP client into a mail server or a
database. Browsers refuse the ports of the WHATWG Fetch standard ("bad port"); the stores below are ours.
"""

from types import MappingProxyType
from typing import Final

# https://fetch.spec.whatwg.org/#port-blocking
_FETCH: Final = (
    *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95),
    *(101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179),
    *(389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993),
    *(995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679),
    *(6697, 10080),
)
_SERVICES: Final = MappingProxyType(
    {
        22: "SSH",
        25: "mail",
        53: "DNS",
        389: "LDAP",
        # Not on browsers' list: they sit where a proxy can reach and a browser cannot.
        445: "SMB",
        873: "rsync",
        1433: "SQL Server",
        1521: "Oracle",
        3306: "MySQL",
        3389: "RDP",
        5432: "PostgreSQL",
        5672: "AMQP",
        5900: "VNC",
        6379: "Redis",
        9042: "Cassandra",
        9092: "Kafka",
        11211: "memcached",
        27017: "MongoDB",
    }
)

NOT_HTTP: Final = frozenset(_FETCH) | _SERVICES.keys()


def not_http(port: int) -> str | None:
    """What is spoken on a port instead of HTTP, in words; None for every other port."""
    if port not in NOT_HTTP:
        return None
    service = _SERVICES.get(port)
    return "another protocol than HTTP" if service is None else service
