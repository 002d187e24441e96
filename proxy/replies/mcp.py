"""Which answers are filtered, and how: the one place where the pipeline asks.

An answer is filtered where its connection's service is MCP, whatever was asked. A list of tools shows what a rule may
let the account call, and nothing whose definition is another than the catalogue's.
"""

from dataclasses import dataclass
from datetime import datetime

from proxy.http.response_head import ResponseHead
from proxy.journey import Journey
from proxy.replies.definitions import Definitions
from proxy.replies.event_stream import EventStreamFilter
from proxy.replies.messages import May
from proxy.replies.reply_filter import Filtering, ReplyFilter
from proxy.replies.whole import JsonFilter, OtherFilter, Refusal
from rules.call import Call, Facts
from rules.classification import of_mcp_tool
from rules.content.media_type import read_media_type
from rules.content.refused import ContentRefused
from rules.matching import may_call
from rules.observing import observing
from rules.services.mcp import MCP


@dataclass(frozen=True, slots=True)
class McpReplies:
    """Makes the filter for one answer."""

    may: May
    request_id: str | int | None = None
    """Of the one request that is answered."""

    def __call__(self, head: ResponseHead) -> ReplyFilter:
        """The filter that an answer with this head needs."""
        if (head.get(b"content-encoding") or b"identity").lower() != b"identity":
            return Refusal("the answer is encoded, and was asked for as it is")
        if head.status == 206:
            return Refusal("the answer is a part of one")
        declared = head.get(b"content-type")
        if not declared:
            return OtherFilter()
        try:
            media = read_media_type(declared)
        except ContentRefused as error:
            return Refusal(error.detail)
        if media.essence == "application/json":
            return JsonFilter(self.may)
        if media.essence == "text/event-stream":
            return EventStreamFilter(self.may, self.request_id)
        return OtherFilter()


def is_mcp(journey: Journey) -> bool:
    """True where the origin speaks MCP, as far as the policy and its catalogue say."""
    return journey.connection is not None and journey.connection.service is MCP


def reply_filter_for(journey: Journey, call: Call, definitions: Definitions, now: datetime) -> Filtering | None:
    """What every answer to this call goes through; None where answers are passed on as they come."""
    connection = journey.connection
    if connection is None or not is_mcp(journey):
        return None
    facts = Facts(journey.policy, connection, now)
    observed = observing(call, facts)

    def may(name: str, digest: str) -> bool:
        action = of_mcp_tool(connection.known, name)
        if not definitions.heard(connection, action, digest):
            return False
        return observed or may_call(call, facts, action)

    return McpReplies(may, journey.request_id)
