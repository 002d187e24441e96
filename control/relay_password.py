"""Where a request may carry the password of its run, and how it is taken out.

a proxy's request       in Proxy-Authorization, as `account:password`
a base-URL request      where the SDK puts its API key: one of a fixed list of fields and query parameters
a base-URL request that a client sent through the relay as its proxy, `GET http://RELAY/to/...`
                        in both: every client that obeys HTTP_PROXY does so, and RFC 9112 section 3.2.2 has servers
                        take it

Otherwise it stands in exactly one place. The place is removed, and a head that has the password anywhere else is
refused: it would travel on to the door, and from there to a service.
"""

import hmac
import re
from collections.abc import Iterator
from dataclasses import replace

from control.relay_head import Form, HeadRefused, Line, RelayHead, decode_basic

FIELDS: tuple[bytes, ...] = (
    b"proxy-authorization",
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"private-token",
)
"""The door's own list (`proxy.base_url`); a test compares them. It is not imported: a relay starts in a moment, without
the proxy."""
PARAMETERS: tuple[bytes, ...] = (b"key", b"api_key", b"apikey", b"access_token", b"token")
"""The door's own list as well."""

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


class PasswordMissing(Exception):
    """Nothing stands where a password could: many clients ask first and present it second."""


class PasswordWrong(Exception):
    """What stands there is not the password of this run."""


def without_password(
    head: RelayHead, account: bytes, password: bytes, authorities: tuple[bytes, ...] = ()
) -> RelayHead:
    """The head without what carried the password, which was right. `authorities`: this relay's own `host:port`.

    Raises `PasswordMissing`, `PasswordWrong`, and `HeadRefused` where it stands twice or where two readers could
    disagree about it. Every comparison with the password takes the same time, whatever was presented.
    """
    own = _sent_to_the_relay_itself(head, authorities)
    if own is not None:
        try:
            rest = _from_base_url(_from_proxy(own, account, password), password)
        except (PasswordMissing, PasswordWrong):
            rest = _from_proxy(own, account, password)  # the proxy's own is enough; the rest is the door's business
    elif head.form is Form.BASE_URL:
        rest = _from_base_url(head, password)
    else:
        rest = _from_proxy(head, account, password)
    # Looked for only now: whoever gets here has proven that it knows the password.
    if any(password in line.value or password in (decode_basic(line.value) or b"") for line in rest.lines):
        raise HeadRefused("the password stands in more than one place")
    if password in _ESCAPE.sub(lambda escape: bytes((int(escape[1], 16),)), rest.target):
        raise HeadRefused("the password stands in more than one place")
    return rest


def _sent_to_the_relay_itself(head: RelayHead, authorities: tuple[bytes, ...]) -> RelayHead | None:
    """The base-URL request that a proxy's request is when it names this very relay; None when it is none."""
    authority, slash, path = head.target[len(b"http://") :].partition(b"/")
    if head.form is not Form.ABSOLUTE or not slash or authority not in authorities:
        return None
    return replace(head, form=Form.BASE_URL, target=slash + path)


def _from_proxy(head: RelayHead, account: bytes, password: bytes) -> RelayHead:
    lines = [line for line in head.lines if line.name == b"proxy-authorization"]
    if not lines:
        raise PasswordMissing
    if len(lines) > 1:
        raise HeadRefused("Proxy-Authorization is given twice")
    presented = decode_basic(lines[0].value)
    if presented is None or not hmac.compare_digest(presented, account + b":" + password):
        raise PasswordWrong
    return replace(head, lines=tuple(line for line in head.lines if line is not lines[0]))


def _from_base_url(head: RelayHead, password: bytes) -> RelayHead:
    fields = [line for line in head.lines if line.name in FIELDS]
    names = [line.name for line in fields]
    if len(names) != len(set(names)):
        raise HeadRefused("a field for a key is given twice")
    path, mark, query = head.target.partition(b"?")
    parameters = query.split(b"&") if mark else []
    keys = [parameter for parameter in parameters if parameter.partition(b"=")[0] in PARAMETERS]
    carrying = [line for line in fields if any(hmac.compare_digest(one, password) for one in _candidates(line))]
    keyed = [key for key in keys if hmac.compare_digest(key.partition(b"=")[2], password)]
    if not carrying and not keyed:
        raise PasswordWrong if fields or keys else PasswordMissing
    if len(carrying) + len(keyed) > 1:
        raise HeadRefused("the password stands in more than one place")
    if carrying != [line for line in fields if line.name == b"proxy-authorization"] and (
        b"proxy-authorization" in names
    ):
        raise HeadRefused("Proxy-Authorization stands beside the password")  # the credential's own line comes there
    if carrying:
        return replace(head, lines=tuple(line for line in head.lines if line is not carrying[0]))
    name = keyed[0].partition(b"=")[0]
    if sum(key.partition(b"=")[0] == name for key in keys) > 1:
        raise HeadRefused("the parameter with the password is given twice")
    kept = [parameter for parameter in parameters if parameter is not keyed[0]]
    return replace(head, target=path + b"?" + b"&".join(kept) if kept else path)


def _candidates(line: Line) -> Iterator[bytes]:
    """What in a field could be the password: all of it, what follows a scheme, either half of a Basic pair."""
    yield line.value
    scheme, _, parameter = line.value.partition(b" ")
    if scheme.lower() in (b"bearer", b"token"):  # GitHub's older clients say `token`
        yield parameter.strip(b" ")
    pair = decode_basic(line.value)
    if pair is not None:
        # Stripe puts its key where the user goes, Twilio and git where the password does.
        user, _, secret = pair.partition(b":")
        yield user
        yield secret
