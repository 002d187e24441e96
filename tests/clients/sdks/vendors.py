"""The services that SDKs talk to, in one table: what the policy says of each, and what its origin answers.

The origin answers for the hosts that the SDKs have built in, with the vendors' own shapes, so that a program needs no
base URL: it does not know that it is not talking to them. Anything that is not in the table is a failed test: the
origin answers 418, which no SDK takes for success.
"""

import json
from dataclasses import dataclass
from typing import Final

from tests.worlds.origin import Peer, Request, reply

CALLER: Final = b"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Account>123456789012</Account><UserId>AIDA</UserId><Arn>arn:aws:iam::123456789012:user/agent</Arn>
</GetCallerIdentityResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetCallerIdentityResponse>"""
ACCOUNT: Final = "AC" + "0" * 32


def _json(value: object) -> bytes:
    return reply(json.dumps(value).encode())


def _typed(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


CHAT: Final = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Once upon a time"}}],
}  # fmt: skip
MESSAGE: Final = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "Once upon a time"}],
    "usage": {"input_tokens": 1, "output_tokens": 4},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Vendor:
    """One connection: the call that the policy allows, and what the origin says to it."""

    name: str
    host: str
    method: str
    path: str
    answer: bytes
    present: str = "bearer"
    """As a policy says it; empty: the connection has no secret."""
    when: str = ""
    """The condition of its rule."""


VENDORS: Final = (
    Vendor("saas", "saas.test", "GET", "/items/1", _json({"ok": True})),
    Vendor("openai", "api.openai.com", "POST", "/v1/chat/completions", _json(CHAT)),
    Vendor("anthropic", "api.anthropic.com", "POST", "/v1/messages", _json(MESSAGE), "{header: x-api-key}"),
    Vendor("stripe", "api.stripe.com", "POST", "/v1/refunds", _json({"id": "re_1", "object": "refund", "amount": 100})),
    Vendor("slack", "slack.com", "POST", "/api/chat.postMessage", _json({"ok": True, "ts": "1.2"})),
    Vendor("github", "api.github.com", "GET", "/user", _json({"login": "octocat", "url": "https://api.github.com/user"})),
    Vendor("google", "www.googleapis.com", "GET", "/drive/v3/files", _json({"files": [{"id": "f1"}]})),
    Vendor(
        "twilio", "api.twilio.com", "POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json",
        _json({"sid": "SM1", "status": "queued"}), f"{{basic: {ACCOUNT}}}",
    ),
    Vendor(
        "sts", "sts.us-east-1.amazonaws.com", "POST", "/", _typed("text/xml", CALLER), "",
        "body.Action == 'GetCallerIdentity'",
    ),
    Vendor("s3", "s3.amazonaws.com", "GET", "/reports/june.csv", _typed("text/csv", b"a,b\n"), ""),
    Vendor(
        "dynamodb", "dynamodb.us-east-1.amazonaws.com", "POST", "/tables",
        _typed("application/x-amz-json-1.0", b'{"TableNames":["orders"]}'), "",
    ),
)  # fmt: skip
SECRET: Final = "real-secret-of-the-vendors-9d41c7"
"""One for all: what is shown here is where it stands, not whose it is."""


async def answer(request: Request, peer: Peer) -> None:
    """The vendor's answer to the one call that its connection allows."""
    path = request.target.partition("?")[0]
    for vendor in VENDORS:
        if (request.header("host"), request.method, path) == (vendor.host, vendor.method, vendor.path):
            await peer.send(vendor.answer)
            return
    await peer.send(reply(b"{}", status="418 I'm a teapot"))


ADD_ALONE: Final = "body.method != 'tools/call' || body.params.name == 'add'"
"""Of the tools of the MCP server."""


def policy(port: int, mcp_port: int) -> str:
    """One tenant of accounts that differ in what they may do in a time: ACCOUNTS says it."""
    owners = "owners: {accountable: a@x.example, system: s@x.example, risk: r@x.example}"
    lines = ["exeat: 1", "tenant: acme", "credentials: {ttl: 1m, max_ttl: 5m}", "connections:"]
    rules = []
    for vendor in VENDORS:
        secret = f", secret: vendors, present: {vendor.present}" if vendor.present else ""
        lines.append(f'  {vendor.name}: {{host: {vendor.host}, dial: "127.0.0.1:{port}", ca: ca.pem{secret}}}')
        call = f'connection: {vendor.name}, methods: [{vendor.method}], path: "{vendor.path}"'
        when = f', when: "{vendor.when}"' if vendor.when else ""
        rules.append(f"      - {{id: {vendor.name}, allow: {{{call}}}{when}}}")
    git = f'host: github.com, dial: "127.0.0.1:{port}", ca: ca.pem, secret: vendors, present: {{basic: x}}'
    tools = f'host: mcp.test, dial: "127.0.0.1:{mcp_port}", ca: ca.pem, secret: vendors, service: mcp'
    lines += [f"  git: {{{git}}}", f"  tools: {{{tools}}}", "accounts:"]
    rules.append("      - {id: git, allow: {connection: git, methods: [GET, POST], path: /acme/tools.git/**}}")
    tools = "{connection: tools, methods: [POST], path: /mcp}"
    rules.append(f'      - {{id: tools, allow: {tools}, when: "{ADD_ALONE}"}}')
    for account, rate in ACCOUNTS.items():
        lines += [f"  {account}:", f"    {owners}", f"    limits: {{rate: [{rate}]}}", "    rules:", *rules]
    return "\n".join(lines) + "\n"


_SOON: Final = "max: 30, per: minute, burst: 1"
"""Freed two seconds later: for programs that wait and go on."""
_LATER: Final = "max: 1, per: hour, burst: 1"
"""Freed an hour later: for programs that do not wait, however slow a machine is."""


def _limits(soon: str) -> str:
    """One call on each connection, and the next soon on those that are named, separated by spaces."""
    rates = {vendor.name: _SOON if vendor.name in soon.split() else _LATER for vendor in VENDORS}
    return ", ".join(f"{{connection: {name}, {rate}}}" for name, rate in rates.items())


ACCOUNTS: Final = {
    "agent": _limits(soon="anthropic github sts"),
    "door": _limits(soon="openai anthropic slack github google sts"),
    **{name: _limits(soon="saas") for name in ("requests", "urllib3", "curl")},
    **{name: _limits(soon="") for name in ("httpx2", "aiohttp")},
    "git": "{connection: git, max: 3, per: hour, burst: 3}",
    "tools": "{connection: tools, max: 30, per: minute, burst: 5}",
    "tools-door": "{connection: tools, max: 30, per: minute, burst: 5}",
    "reader": "",
}
"""Account: its limits. One for each program that counts, so that none waits for another."""
