"""Policies that name tools, and the vendors' own SDKs against services that remember what was done to them.

One program each. What an SDK is denied it raises as its own exception, with our code; and the service's state says
that nothing came of it.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.clients.sdks import vendors
from tests.clients.sdks.conftest import AGENTS_OWN, Sdks
from tests.worlds.origin import Peer, Request, reply
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import running

POLICY = """\
exeat: 1
tenant: acme
connections:
  stripe: {{host: api.stripe.com, {to}, account: acct_1Abc}}
  github: {{host: api.github.com, {to}, account: acme}}
  slack: {{host: slack.com, {to}}}
  models: {{host: api.openai.com, {to}}}
accounts:
  agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    rules:
      - {{id: look, allow: {{connection: "*", effects: [read]}}}}
      - {{id: small-refund, allow: stripe.refund.create, when: amount <= usd(100)}}
      - {{id: comment, allow: github.issues.createComment, when: args.owner == 'acme' && args.repo == 'site'}}
      - {{id: say, allow: slack.chat.postMessage, when: "recipients.all(to, to in ['C1', 'C2'])"}}
      - {{id: chat, allow: openai.chat.completions.create, when: "args.model in ['small', 'medium']"}}
      - {{id: never-delete, deny: {{effects: [delete]}}}}
"""
HOSTS = ("api.stripe.com", "api.github.com", "slack.com", "api.openai.com")
ISSUE = re.compile(r"/repos/(\w+/\w+)/issues/(\d+)(/comments)?")
type Answer = tuple[str, object]
NOT_FOUND: Answer = ("404 Not Found", {"message": "Not Found", "error": {"message": "no such thing"}})


class Services:
    """Four services of which each call changes something that the next one sees."""

    def __init__(self) -> None:
        self.charges = {
            "ch_1": {"id": "ch_1", "object": "charge", "amount": 25_000, "amount_refunded": 0, "currency": "usd"},
            "ch_yen": {"id": "ch_yen", "object": "charge", "amount": 90, "amount_refunded": 0, "currency": "jpy"},
        }
        self.comments: list[dict[str, Any]] = []
        self.messages: list[dict[str, str]] = []
        self.completions: dict[str, dict[str, Any]] = {}
        self.heard: list[Request] = []

    async def script(self, request: Request, peer: Peer) -> None:
        self.heard.append(request)
        host = request.header("host") or ""
        path, _, _ = request.target.partition("?")
        service: dict[str, Callable[[str, str, bytes], Answer]] = {
            "api.stripe.com": self.stripe, "api.github.com": self.github,
            "slack.com": self.slack, "api.openai.com": self.openai,
        }  # fmt: skip
        status, value = service[host](request.method, path, request.body)
        await peer.send(reply(json.dumps(value).encode(), status=status))

    def stripe(self, method: str, path: str, body: bytes) -> Answer:
        if method == "GET":
            charge = self.charges.get(path.removeprefix("/v1/charges/"))
            return NOT_FOUND if charge is None else ("200 OK", charge)
        if (method, path) != ("POST", "/v1/refunds"):
            return NOT_FOUND
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        charge = self.charges[form["charge"]]
        left = int(str(charge["amount"])) - int(str(charge["amount_refunded"]))
        amount = int(form.get("amount", left))
        if amount > left:
            return "400 Bad Request", {"error": {"type": "invalid_request_error", "message": "more than is left"}}
        charge["amount_refunded"] = int(str(charge["amount_refunded"])) + amount
        return "200 OK", {"id": "re_1", "object": "refund", "amount": amount, "charge": form["charge"]}

    def github(self, method: str, path: str, body: bytes) -> Answer:
        found = ISSUE.fullmatch(path)
        if found is None:
            return NOT_FOUND
        repo, number, comments = found.groups()
        url = f"https://api.github.com/repos/{repo}/issues"
        if comments is None:
            return "200 OK", {"number": int(number), "url": f"{url}/{number}", "title": "t"}
        if method == "POST":
            written = {"id": len(self.comments), "url": f"{url}/comments/{len(self.comments)}", **json.loads(body)}
            self.comments.append(written)
            return "201 Created", written
        return "200 OK", self.comments

    def slack(self, method: str, path: str, body: bytes) -> Answer:
        if path == "/api/chat.postMessage":
            said = json.loads(body)
            self.messages.append({"type": "message", "channel": said["channel"], "text": said["text"]})
            return "200 OK", {"ok": True, "ts": f"{len(self.messages)}.0", "channel": said["channel"]}
        if path == "/api/conversations.history":
            return "200 OK", {"ok": True, "messages": self.messages}
        return NOT_FOUND

    def openai(self, method: str, path: str, body: bytes) -> Answer:
        if method == "POST":
            name = f"c{len(self.completions)}"
            self.completions[name] = vendors.CHAT | {"id": name, "model": json.loads(body)["model"]}
            return "200 OK", self.completions[name]
        found = self.completions.get(path.removeprefix("/v1/chat/completions/"))
        return NOT_FOUND if found is None else ("200 OK", found)


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Sdks, Services]]:
    services = Services()
    with OriginThread(HOSTS, services.script) as origin:
        policy = POLICY.format(to=f'dial: "127.0.0.1:{origin.port}", ca: ca.pem, secret: vendors')
        files, secrets = {"ca.pem": origin.authority.pem}, {"vendors": vendors.SECRET.encode()}
        with running(policy=policy, files=files, secrets=secrets) as product:
            yield Sdks(product, services.heard), services


STRIPE = """
import stripe
stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]
stripe.api_key = sys.argv[1]
def denied(call):
    error = refusal(call, stripe.PermissionError)
    tell(code=error.error.code, rule=error.json_body.get("rule"))
refund = stripe.Refund.create
denied(lambda: refund(charge="ch_1"))                      # all of it: 250.00
denied(lambda: refund(charge="ch_1", amount=10001))
tell(amount=refund(charge="ch_1", amount=10000).amount)
denied(lambda: refund(charge="ch_1"))                      # 150.00 are left
tell(amount=refund(charge="ch_1", amount=9999, stripe_account="acct_evil").amount)
tell(amount=refund(charge="ch_1").amount)                  # 50.01 are left
tell(left=stripe.Charge.retrieve("ch_1").amount_refunded)
denied(lambda: refund(charge="ch_yen"))
denied(lambda: refund(charge="ch_none"))
denied(lambda: stripe.Customer.delete("cus_1"))
denied(lambda: stripe.Payout.create(amount=1, currency="usd"))
"""


def test_stripe_refunds_up_to_a_hundred_dollars(world: tuple[Sdks, Services]) -> None:
    sdks, services = world
    run = sdks.run(STRIPE, AGENTS_OWN)
    assert [told.get("code") or told for told in run.told] == [
        "not_allowed", "not_allowed", {"amount": 10_000}, "not_allowed", {"amount": 9_999}, {"amount": 5_001},
        {"left": 25_000}, "condition_failed", "amount_unknown", "rule_denied", "not_allowed",
    ]  # fmt: skip
    assert run.told[9]["rule"] == "never-delete"
    assert services.charges["ch_1"]["amount_refunded"] == 25_000
    assert services.charges["ch_yen"]["amount_refunded"] == 0
    assert {request.header("stripe-account") for request in run.requests} == {"acct_1Abc"}
    asked = [record for record in run.records if record["call"].endswith(".l1")]
    assert len(asked) == 8  # each refund is looked up: none says its currency
    tools = [record["op"]["tool"] for record in run.records if record not in asked]
    assert set(tools) == {
        "stripe.refund.create", "stripe.charge.get", "stripe.customer.delete", "stripe.payout.create",
    }  # fmt: skip


GITHUB = """
import github
client = github.Github(auth=github.Auth.Token(sys.argv[1]), timeout=20, seconds_between_requests=None, lazy=True)
def denied(call):
    error = refusal(call, github.GithubException)
    tell(status=error.status, code=error.data["code"])
issue = client.get_repo("acme/site").get_issue(7)
comment = issue.create_comment("Thanks")
tell(comments=[found.body for found in issue.get_comments()])
denied(lambda: comment.delete())
denied(lambda: comment.edit("else"))
denied(lambda: client.get_repo("acme/secret").get_issue(7).create_comment("Thanks"))
denied(lambda: client.get_repo("evil/site").get_issue(7).title)
denied(lambda: client.get_user().login)
"""


def test_github_comments_on_our_own_issues(world: tuple[Sdks, Services]) -> None:
    sdks, services = world
    run = sdks.run(GITHUB, AGENTS_OWN)
    first, *denied = run.told
    assert first == {"comments": ["Thanks"]}
    assert [(told["status"], told["code"]) for told in denied] == [
        (403, "rule_denied"), (403, "not_allowed"), (403, "not_allowed"),
        (403, "account_mismatch"), (403, "account_mismatch"),
    ]  # fmt: skip
    assert [comment["body"] for comment in services.comments] == ["Thanks"]
    assert "github.issues.createComment" in [record["op"]["tool"] for record in run.records]
    assert not [request for request in run.requests if "evil" in request.target]


SLACK = """
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
client = WebClient(token=sys.argv[1], timeout=20)
def denied(call): tell(code=refusal(call, SlackApiError).response["code"])
for channel in ("C1", "C2"): tell(ts=client.chat_postMessage(channel=channel, text="hello")["ts"])
denied(lambda: client.chat_postMessage(channel="C3", text="hello"))
denied(lambda: client.chat_delete(channel="C1", ts="1.0"))
tell(said=[message["channel"] for message in client.conversations_history(channel="C1")["messages"]])
"""


def test_slack_speaks_in_two_channels(world: tuple[Sdks, Services]) -> None:
    sdks, services = world
    run = sdks.run(SLACK, AGENTS_OWN)
    assert run.told == [
        {"ts": "1.0"}, {"ts": "2.0"}, {"code": "not_allowed"}, {"code": "rule_denied"}, {"said": ["C1", "C2"]},
    ]  # fmt: skip
    assert [message["channel"] for message in services.messages] == ["C1", "C2"]


OPENAI = """
import openai
client = openai.OpenAI(api_key=sys.argv[1], timeout=20)
def ask(model): return client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
def denied(call):
    error = refusal(call, openai.PermissionDeniedError)
    tell(code=error.code)
one = ask("small")
tell(text=one.choices[0].message.content)
denied(lambda: ask("large"))
denied(lambda: client.chat.completions.delete(one.id))
tell(model=client.chat.completions.retrieve(one.id).model)
denied(lambda: client.embeddings.create(model="small", input="hi", encoding_format="float"))
"""


def test_openai_has_two_models(world: tuple[Sdks, Services]) -> None:
    sdks, services = world
    run = sdks.run(OPENAI, AGENTS_OWN)
    assert run.told == [
        {"text": "Once upon a time"}, {"code": "not_allowed"}, {"code": "rule_denied"}, {"model": "small"},
        {"code": "not_allowed"},
    ]  # fmt: skip
    assert [completion["model"] for completion in services.completions.values()] == ["small"]
