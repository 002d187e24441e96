"""Names that may enter a token, a record or a terminal: one line of visible ASCII, bounded."""

import re
from typing import Final

# No control characters, no bidirectional overrides, no quotes: a name is printed to terminals and logs (threats:
# "log injection (CRLF, ANSI, right-to-left)"). 128 is twice the longest DNS label and room for an e-mail address.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/+=-]{0,127}", re.ASCII)

# A tenant's name stands in keys of counters, in records and in file names of exports: no separator, as in the ledger's
# own schema.
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def is_tenant(value: object) -> bool:
    """True for 1 to 64 characters of letters, digits and `._-`, starting with a letter or digit."""
    return isinstance(value, str) and _TENANT.fullmatch(value) is not None


def is_name(value: object) -> bool:
    """True for 1 to 128 characters of letters, digits and `._@:/+=-`, starting with a letter or digit."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None
