"""What calls of models cost, with the vendors' own SDKs: the bill of a fake that counts is what the ledger charges.

Where the vendor does not say what a call used, it is charged at the most that the request let it use, never at less
than the bill.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.clients.sdks import vendors
from tests.clients.sdks.conftest import AGENTS_OWN, Run, Sdks
from tests.clients.sdks.models import CACHED, Models
from tests.worlds.origin import Request
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import running

HOSTS = ("api.openai.com", "api.anthropic.com")
OWNERS = "owners: {accountable: a@x.example, system: s@x.example, risk: r@x.example}"
POLICY = """\
exeat: 1
tenant: acme
connections:
  openai: {{host: api.openai.com, {origin}, price: {{book: openai}}}}
  anthropic: {{host: api.anthropic.com, {origin}, price: {{book: anthropic}}}}
accounts:
"""
SPENDS = {
    "free": "",
    "tokens": "{meter: tokens, max: 2000, per: day}",
    "money": "{meter: price, max: 0.004 USD, per: day}",
}


@dataclass
class Costs:
    sdks: Sdks
    models: Models

    def run(self, script: str, account: str = "free") -> tuple[Run, list[tuple[int, int]], list[Any]]:
        """The run, what was billed, and of each call what its records say: the most and what was charged."""
        before = len(self.models.bill)
        run = self.sdks.run(script, AGENTS_OWN, account=account)
        calls = [record["call"] for record in run.records if record["type"] == "call.intent"]
        outcomes = {record["call"]: record["cost"] for record in self.sdks.product.records("call.outcome")}
        most = {record["call"]: record["cost"] for record in run.records if record["type"] == "call.intent"}
        return run, self.models.bill[before:], [(most[call], outcomes[call]) for call in calls]


@pytest.fixture(scope="module")
def costs() -> Iterator[Costs]:
    models, heard = Models(), list[Request]()

    async def script(request: Request, peer: Any) -> None:
        heard.append(request)
        await models.answer(request, peer)

    rules = '    rules: [{id: all, allow: {connection: "*", path: /**}}]\n'
    with OriginThread(HOSTS, script) as origin:
        policy = POLICY.format(origin=f'dial: "127.0.0.1:{origin.port}", ca: ca.pem, secret: vendors') + "".join(
            f"  {name}:\n    {OWNERS}\n    limits: {{spend: [{spend}]}}\n{rules}" for name, spend in SPENDS.items()
        )
        secrets = {"vendors": vendors.SECRET.encode()}
        with running(policy=policy, files={"ca.pem": origin.authority.pem}, secrets=secrets) as product:
            yield Costs(Sdks(product, heard), models)


def tokens(cost: Any) -> int:
    return int(cost["units"]["tokens"]) // 1_000_000


OPENAI = """
import openai
client = openai.OpenAI(api_key=sys.argv[1], timeout=20)
hello = [{"role": "user", "content": "hello to you"}]
ask = dict(model="gpt-4o-mini", messages=hello, max_completion_tokens=50)
"""


def test_openai_is_charged_what_it_says_it_used(costs: Costs) -> None:
    script = """
tell(text=client.chat.completions.create(**ask).choices[0].message.content)
parts = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ask)
tell(text="".join(part.choices[0].delta.content for part in parts if part.choices))
tell(text=client.responses.create(model="gpt-4o-mini", input="hello", max_output_tokens=50).output_text)
events = client.responses.create(model="gpt-4o-mini", input="hello", max_output_tokens=50, stream=True)
tell(text="".join(event.delta for event in events if event.type == "response.output_text.delta"))
tell(size=len(client.embeddings.create(model="text-embedding-3-small", input="hello", encoding_format="float").data))
"""
    run, bill, charged = costs.run(OPENAI + script)
    assert run.told == [{"text": "Once upon a time"}] * 4 + [{"size": 1}]
    assert [tokens(truth) for _, truth in charged] == [read + written for read, written in bill]
    for (read, written), (most, truth) in list(zip(bill, charged, strict=True))[:4]:
        micros = -(-((read - CACHED) * 150_000 + CACHED * 75_000 + written * 600_000) // 1_000_000)
        assert truth["micro"] == micros
        assert most["micro"] > truth["micro"]
        assert most["price_book"] == truth["price_book"]
    assert charged[4][1]["micro"] == 1


def test_a_stream_that_says_nothing_is_charged_at_the_most(costs: Costs) -> None:
    script = """
parts = client.chat.completions.create(stream=True, **ask)
tell(text="".join(part.choices[0].delta.content for part in parts))
"""
    run, ((read, written),), ((most, truth),) = costs.run(OPENAI + script)
    assert run.told == [{"text": "Once upon a time"}]
    assert truth == most
    assert tokens(truth) > read + written
    assert tokens(truth) == len(run.requests[0].body) + 200 + 50


LEAVES = {
    "openai": """
parts = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **(ask | {"model": "slow"}))
tell(first=next(iter(parts)).choices[0].delta.content)
""",
    "anthropic": """
events = client.messages.create(stream=True, **(ask | {"model": "slow"}))
tell(first=next(event.delta.text for event in events if event.type == "content_block_delta"))
""",
}
ANTHROPIC = """
import anthropic
client = anthropic.Anthropic(api_key=sys.argv[1], timeout=20)
ask = dict(model="claude-haiku-4-5-20251001", max_tokens=50, messages=[{"role": "user", "content": "hello to you"}])
"""


@pytest.mark.parametrize(("vendor", "begin"), [("openai", OPENAI), ("anthropic", ANTHROPIC)])
def test_a_program_that_leaves_in_mid_stream_is_charged_at_the_most(costs: Costs, vendor: str, begin: str) -> None:
    """It ends without reading on: what its vendor goes on to write, it has asked for."""
    before = len(costs.sdks.product.records("call.outcome"))
    run = costs.sdks.run(begin + LEAVES[vendor] + "os._exit(0)", AGENTS_OWN, account="free")
    assert run.told == [{"first": "Once"}]
    (intent,) = run.records
    outcome = _next_outcome(costs, before)
    assert outcome["call"] == intent["call"]
    assert outcome["result"]["status"] == "aborted"
    assert outcome["cost"] == intent["cost"]


def _next_outcome(costs: Costs, before: int) -> Any:
    while len(found := costs.sdks.product.records("call.outcome")) <= before:
        time.sleep(0.05)
    return found[-1]


def test_anthropic_is_charged_what_it_says_it_used(costs: Costs) -> None:
    script = """
tell(text=client.messages.create(**ask).content[0].text)
with client.messages.stream(**ask) as stream:
    tell(text="".join(stream.text_stream))
"""
    run, bill, charged = costs.run(ANTHROPIC + script)
    assert run.told == [{"text": "Once upon a time"}] * 2
    for (read, written), (most, truth) in zip(bill, charged, strict=True):
        assert tokens(truth) == read + written
        micros = -(-((read - CACHED) * 1_000_000 + CACHED * 100_000 + written * 5_000_000) // 1_000_000)
        assert truth["micro"] == micros
        assert most["micro"] > truth["micro"]


@pytest.mark.parametrize(
    ("begin", "call", "account", "unit"),
    [
        (OPENAI, "client.chat.completions.create(**ask)", "tokens", "tokens"),
        (ANTHROPIC, "client.messages.create(**ask)", "money", "USD"),
    ],
)
def test_a_cap_that_is_reached_is_an_error_that_the_sdk_understands_and_does_not_try_again(
    costs: Costs, begin: str, call: str, account: str, unit: str
) -> None:
    kind = "openai" if begin == OPENAI else "anthropic"
    script = f"""
for number in range(200):
    try: {call}
    except {kind}.PermissionDeniedError as error:
        code = error.response.headers["exeat-code"]
        tell(number=number, status=error.status_code, code=code, body=error.body["code"], said=str(error))
        break
"""
    run, bill, charged = costs.run(begin + script, account)
    (told,) = run.told
    assert (told["status"], told["code"], told["body"]) == (403, "spend_cap_reached", "spend_cap_reached")
    assert unit in told["said"]
    assert told["number"] == len(bill) == len(charged) > 1
    assert [verdict for _, verdict in run.verdicts()] == ["allow"] * len(bill) + ["spend_cap_reached"]
    # What is left is less than the most that one more call could have used, and the cap has held.
    most = charged[0][0]
    spent = sum(tokens(truth) if unit == "tokens" else truth["micro"] for _, truth in charged)
    cap, needed = (2000, tokens(most)) if unit == "tokens" else (4000, most["micro"])
    assert cap - needed < spent <= cap
