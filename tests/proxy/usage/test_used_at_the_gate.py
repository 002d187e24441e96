"""Calls of models through a real gate: the most is set aside, the truth is settled, and not a byte is changed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rules.prices.library import builtin
from tests.worlds.authority import Authority
from tests.worlds.gate import Agent, GateWorld, running_gate, write_policy
from tests.worlds.origin import Action, Origin, Peer, Request, Script, answers, reply

pytestmark = pytest.mark.anyio

POLICY = """\
exeat: 1
tenant: acme
connections:
  models: {{host: api.openai.com, dial: "127.0.0.1:{port}", ca: ca.pem, price: {{book: openai}}}}
  claude: {{host: api.anthropic.com, dial: "127.0.0.1:{port}", ca: ca.pem, price: {{book: anthropic}}}}
  bare: {{host: bare.test, service: openai, dial: "127.0.0.1:{port}", ca: ca.pem}}
accounts:
  agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits: {{spend: [{{meter: price, max: {usd} USD, per: day}}, {{meter: tokens, max: {tokens}, per: hour}}]}}
    rules: [{{id: all, allow: {{connection: "*", path: /**}}}}]
"""
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 100}
USAGE = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28, "prompt_tokens_details": {"cached_tokens": 4}}
TRUTH = 28, 125  # tokens; micros: 16 * 2.50 + 4 * 1.25 + 8 * 10.00
BOOK = builtin("openai")


@dataclass
class Here:
    gate: GateWorld
    origin: Origin

    def agent(self, host: str = "api.openai.com") -> Agent:
        return Agent(self.gate, self.gate.world.token(), host=host)

    async def ask(self, **more: Any) -> Any:
        async with self.agent() as agent:
            return await agent.request("POST", "/v1/chat/completions", json.dumps(ASK | more).encode(), JSON)

    async def costs(self) -> list[Any]:
        """Of each call: its most and what was settled, as tokens and micro-units."""
        intents = {r.body["call"]: r.body["cost"] for r in await self.gate.records("call.intent")}
        outcomes = await self.gate.records("call.outcome")
        return [(_amounts(intents[r.body["call"]]), _amounts(r.body["cost"])) for r in outcomes]

    def spent(self) -> dict[str, tuple[int, int]]:
        """What counts, by budget: spent and set aside."""
        return {b.key.split("/")[2]: (b.spent_micros, b.reserved_micros) for b in self.gate.reservations.budgets()}


JSON = {"Content-Type": "application/json", "Accept-Encoding": "gzip, br"}


def _amounts(cost: Any) -> tuple[int, int]:
    assert BOOK is not None
    assert cost["price_book"] == BOOK.digest
    return cost["units"]["tokens"] // 1_000_000, cost["micro"]


@asynccontextmanager
async def here(folder: Path, script: Script, usd: str = "5", tokens: int = 1_000_000) -> AsyncIterator[Here]:
    authority = Authority()
    leaf = authority.issue("api.openai.com", "api.anthropic.com", "bare.test")
    async with Origin(leaf, script) as origin:
        text = POLICY.format(port=origin.port, usd=usd, tokens=tokens)
        policy = write_policy(folder / "policy", text, {"ca.pem": authority.pem})
        async with running_gate(folder, policy) as gate:
            yield Here(gate, origin)


def whole(usage: object = USAGE, status: str = "200 OK", headers: str = "") -> bytes:
    return reply(json.dumps({"choices": [], "usage": usage}).encode(), status=status, headers=headers)


def chunk(data: object) -> bytes:
    line = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(line), line)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORD = chunk({"choices": [{"delta": {"content": "x"}}], "usage": None})
LAST, DONE, END = chunk({"choices": [], "usage": USAGE}), chunk("[DONE]"), b"0\r\n\r\n"


async def test_the_most_is_set_aside_and_the_truth_is_settled(tmp_path: Path) -> None:
    seen = []
    async with here(tmp_path, answers()) as world:

        async def script(request: Request, peer: Peer) -> None:
            seen.append(world.spent())
            await peer.send(whole())

        world.origin.script = script
        answer = await world.ask()
        ((most, truth),) = await world.costs()
        (request,) = world.origin.requests
        length = len(request.body)
        assert most == (length + 200 + 100, -(-((length + 200) * 2_500_000 + 100 * 10_000_000) // 1_000_000))
        assert seen == [{"USD": (0, most[1]), "tokens": (0, most[0] * 1_000_000)}]
        assert truth == TRUTH
        assert world.spent() == {"USD": (TRUTH[1], 0), "tokens": (TRUTH[0] * 1_000_000, 0)}
        assert answer.body == json.dumps({"choices": [], "usage": USAGE}).encode()
        assert request.header("accept-encoding") == "identity", "it is asked for as it can be read"
        assert json.loads(request.body) == ASK, "and in nothing else is what was asked changed"


async def test_a_stream_is_settled_by_its_last_event_and_passes_as_it_comes(tmp_path: Path) -> None:
    more = asyncio.Event()

    async def script(request: Request, peer: Peer) -> None:
        await peer.send(HEAD + WORD)
        await more.wait()
        await peer.send(WORD + LAST + DONE + END)

    async with here(tmp_path, script) as world, world.agent() as agent:
        await agent.send("POST", "/v1/chat/completions", json.dumps(ASK | {"stream": True}).encode(), JSON)
        await agent.read_head()
        chunks = agent.chunks()
        got = [await anext(chunks)]
        more.set()
        got += [piece async for piece in chunks]
        assert b"".join(got) == b"".join(part.split(b"\r\n", 1)[1][:-2] for part in (WORD, WORD, LAST, DONE))
        ((_, truth),) = await world.costs()
        assert truth == TRUTH


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((HEAD, WORD, DONE, END), id="no event says what was used"),
        pytest.param((HEAD, WORD, Action.ABORT), id="cut by the origin"),
        pytest.param((HEAD, WORD, LAST, Action.ABORT), id="cut behind the counts, where more may have come"),
        pytest.param((whole({"prompt_tokens": -1, "completion_tokens": 8}),), id="impossible counts"),
        pytest.param((whole(None),), id="no counts"),
        pytest.param((whole(headers="Content-Encoding: gzip\r\n"),), id="encoded all the same"),
        pytest.param((whole(status="500 Internal Server Error"),), id="nobody knows what a failure used"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", Action.ABORT), id="a reply that breaks off"),
        pytest.param((Action.ABORT,), id="no reply at all"),
    ],
)
async def test_what_nobody_tells_is_charged_at_the_most(tmp_path: Path, steps: tuple[Any, ...]) -> None:
    async with here(tmp_path, answers(*steps)) as world:
        async with world.agent() as agent:
            await agent.send("POST", "/v1/chat/completions", json.dumps(ASK).encode(), JSON)
            with suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):  # some break off
                await agent.read_answer("POST")
        ((most, truth),) = await world.costs()
        assert truth == most
        assert world.spent() == {"USD": (most[1], 0), "tokens": (most[0] * 1_000_000, 0)}


async def test_a_stream_that_is_cut_behind_its_end_is_settled_to_the_truth(tmp_path: Path) -> None:
    """Nothing can be missing behind the last event, so there is no doubt to charge for."""
    async with here(tmp_path, answers(HEAD, WORD, LAST, DONE, Action.ABORT)) as world:
        async with world.agent() as agent:
            await agent.send("POST", "/v1/chat/completions", json.dumps(ASK).encode(), JSON)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
                await agent.read_answer("POST")
        ((_, truth),) = await world.costs()
        assert truth == TRUTH
        (outcome,) = await world.gate.records("call.outcome")
        assert outcome.body["result"]["status"] == "aborted"


async def test_an_agent_that_leaves_in_mid_stream_is_charged_at_the_most(tmp_path: Path) -> None:
    async with here(tmp_path, answers(HEAD, WORD, Action.HANG)) as world:
        async with world.agent() as agent:
            await agent.send("POST", "/v1/chat/completions", json.dumps(ASK).encode(), JSON)
            await agent.read_head()
            await anext(agent.chunks())
        while not await world.gate.records("call.outcome"):
            await asyncio.sleep(0.01)
        ((most, truth),) = await world.costs()
        assert truth == most


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "404 Not Found", "503 Service Unavailable"])
async def test_what_the_service_refused_costs_nothing(tmp_path: Path, status: str) -> None:
    async with here(tmp_path, answers(whole(status=status))) as world:
        await world.ask()
        ((_, truth),) = await world.costs()
        assert truth == (0, 0)
        assert world.spent() == {"USD": (0, 0), "tokens": (0, 0)}


async def test_a_cap_that_is_reached_refuses_before_anything_is_sent(tmp_path: Path) -> None:
    async with here(tmp_path, answers(whole()), tokens=500) as world:
        assert (await world.ask()).status == 200  # 28 tokens of 500 are used, and some 400 are needed
        assert (await world.ask()).status == 200
        for _ in range(3):
            if (answer := await world.ask()).status != 200:
                break
        assert (answer.status, answer.code) == (403, "spend_cap_reached")
        assert "tokens" in json.loads(answer.body)["detail"]
        sent = len(world.origin.requests)
        assert (await world.ask()).code == "spend_cap_reached"
        assert len(world.origin.requests) == sent
        assert (await world.ask(max_completion_tokens=10)).status == 200, "a smaller request still fits"


async def test_a_truth_beyond_the_most_counts_and_the_next_call_is_refused(tmp_path: Path) -> None:
    more = {"prompt_tokens": 900, "completion_tokens": 200_000}
    async with here(tmp_path, answers(whole(more)), usd="1") as world:
        assert (await world.ask()).status == 200
        assert world.spent()["USD"] == (2_002_250, 0)
        assert (await world.ask()).code == "spend_cap_reached"


async def test_what_a_request_does_not_say_is_guessed_from_answers_before(tmp_path: Path) -> None:
    async with here(tmp_path, answers(whole())) as world:
        for _ in range(3):
            await world.ask(max_completion_tokens=None)
        (first, second, third) = [most[0] for most, _ in await world.costs()]
        assert first - second == 8192 - 1024, "the answers were short: no more than the floor is set aside"
        assert second == third


@pytest.mark.parametrize("ends", [DONE + END, None], ids=["untold", "cut"])
async def test_a_guess_made_small_is_not_what_an_untold_call_costs(tmp_path: Path, ends: bytes | None) -> None:
    """An agent that asks for short answers, then for long ones that do not tell, would pass its cap for ever."""
    async with here(tmp_path, answers(whole()), tokens=20_000) as world:
        for _ in range(2):
            await world.ask(max_completion_tokens=None)

        async def script(request: Request, peer: Peer) -> None:
            await peer.send(HEAD + WORD * 100 + (ends or b""))
            if ends is None:
                peer.abort()

        world.origin.script = script
        with suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):  # one breaks off
            await world.ask(max_completion_tokens=None, stream=True)
        (*_, ((most, _), (charged, micros))) = await world.costs()
        assert most < 2_000, "the answers were short"
        assert charged > 16_384, "as much as the model can write"
        assert micros > 163_840
        assert world.spent()["tokens"] == ((2 * TRUTH[0] + charged) * 1_000_000, 0)
        answer = await world.ask(max_completion_tokens=5_000)
        assert (answer.status, answer.code) == (403, "spend_cap_reached")


async def test_calls_at_the_same_time_never_pass_the_cap_together(tmp_path: Path) -> None:
    async with here(tmp_path, answers(0.05, whole()), tokens=1500) as world:
        answered = await asyncio.gather(*(world.ask() for _ in range(24)))
        most = (await world.costs())[0][0][0]
        allowed = sum(answer.status == 200 for answer in answered)
        assert allowed >= 1
        assert world.spent()["tokens"] == (allowed * TRUTH[0] * 1_000_000, 0)
        assert max(1, 1500 // most) <= allowed
        assert {answer.code for answer in answered if answer.status != 200} <= {"spend_cap_reached"}


async def test_without_a_book_tokens_are_counted_and_nothing_is_paid(tmp_path: Path) -> None:
    async with here(tmp_path, answers(whole())) as world:
        async with world.agent("bare.test") as agent:
            await agent.request("POST", "/v1/chat/completions", json.dumps(ASK).encode(), JSON)
        (outcome,) = await world.gate.records("call.outcome")
        cost = outcome.body["cost"]
        assert (cost["micro"], cost["cur"], cost["units"]) == (0, "XXX", {"tokens": 28_000_000})
        assert "price_book" not in cost


async def test_what_costs_nothing_is_not_counted_and_asked_for_as_ever(tmp_path: Path) -> None:
    async with here(tmp_path, answers(reply())) as world:
        async with world.agent() as agent:
            await agent.request("GET", "/v1/models", None, {"Accept-Encoding": "gzip"})
        (intent,) = await world.gate.records("call.intent")
        assert intent.body["cost"] is None
        assert world.origin.requests[0].header("accept-encoding") == "gzip"


async def test_a_long_reply_is_read_to_its_end_in_little_memory(tmp_path: Path) -> None:
    body = b'{"data":[' + b'{"embedding":[' + b"0.125," * 200_000 + b'1]}],"usage":{"prompt_tokens":3}}'
    async with here(tmp_path, answers(reply(body))) as world:
        async with world.agent() as agent:
            ask = json.dumps({"model": "text-embedding-3-small", "input": "x"}).encode()
            answer = await agent.request("POST", "/v1/embeddings", ask, JSON)
        assert answer.body == body
        ((most, truth),) = await world.costs()
        assert truth == (3, 1)
        assert most[0] == len(ask) + 200
