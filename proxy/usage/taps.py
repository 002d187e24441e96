"""Which tap a reply needs: by its status, its media type, and what the catalogue says of the tool that was called."""

from proxy.http.response_head import ResponseHead
from proxy.usage.counts import Impossible, read_header, tokens_of
from proxy.usage.events import EventsTap
from proxy.usage.tap import Tap, Told
from proxy.usage.whole import WholeTap
from rules.catalogue.usage import Usage
from rules.content.media_type import read_media_type
from rules.content.refused import ContentRefused
from rules.prices.tokens import Tokens

NOTHING: Tokens = Tokens()


def tap_for(usage: Usage, head: ResponseHead) -> Tap:
    """The tap for a reply with this head. What no tap can read is not known."""
    if 400 <= head.status < 500 or head.status in usage.free:
        return Told(NOTHING)  # the service refused it
    if head.status not in (200, 201):
        return Told(None)
    if usage.headers is not None:
        return Told(_of_headers(usage, head))
    # It was asked for as it is (`proxy.intent`): what comes otherwise all the same is not decoded here.
    if head.bodyless or (head.get(b"content-encoding") or b"identity").lower() != b"identity":
        return Told(None)
    try:
        media = read_media_type(head.get(b"content-type") or b"").essence
    except ContentRefused:
        return Told(None)
    if media == "text/event-stream" and usage.events:
        return EventsTap(usage)
    if media == "application/json" and usage.reply is not None:
        return WholeTap(usage)
    return Told(None)


def _of_headers(usage: Usage, head: ResponseHead) -> Tokens | None:
    try:
        counts = {kind: read_header(head.get(name.encode())) for kind, name in (usage.headers or {}).items()}
    except Impossible:
        return None
    return tokens_of(counts, usage)
