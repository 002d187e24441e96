"""The most that a request can use of a model, and what is guessed where it does not say."""

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.action import Action
from rules.catalogue.builtin import builtin
from rules.content.content import read_content
from rules.policy.compile import Connection, compile_policy
from rules.policy.load import parse_policy
from rules.prices.estimate import UNNAMED, Estimate, estimated, nothing_learned
from rules.prices.learned import READ, WRITTEN, Bounds, guess, seen

TODAY = date(2026, 11, 25)
POLICY = """
exeat: 1
tenant: acme
connections:
  openai: {host: api.openai.com, price: {book: openai}}
  sized: {host: api.openai.com, port: 8443, price: {book: openai, max_tokens: 500}}
  anthropic: {host: api.anthropic.com, price: {book: anthropic}}
  bare: {host: api.openai.com, port: 9443}
accounts:
  agent:
    owners: {accountable: a@x.example, system: a@x.example, risk: a@x.example}
    rules: [{id: all, allow: {connection: "*", path: /**}}]
"""
CONNECTIONS = compile_policy(parse_policy({"acme.yaml": POLICY.encode()})).tenants["acme"].connections


def estimate(tool: str, args: Any, on: str | None = None, learned: Any = nothing_learned) -> Estimate:
    name = tool.partition(".")[0]
    service = builtin(name)
    assert service is not None
    body = json.dumps(args).encode()
    value = read_content((b"application/json",), body).value
    known = service.tools[tool]
    found = estimated(
        (Action(tool, "write", value, known, service),), connection(on or name), len(body), TODAY, learned
    )  # type: ignore[arg-type]
    assert found is not None
    return found


def connection(name: str) -> Connection:
    return CONNECTIONS[name]


HI = [{"role": "user", "content": "hi"}]
CHAT, RESPONSES, MESSAGES = "openai.chat.completions.create", "openai.responses.create", "anthropic.messages.create"


def test_a_request_that_says_all_is_bounded_by_it() -> None:
    args = {"model": "gpt-4o-mini", "messages": HI, "max_completion_tokens": 100, "n": 3}
    found = estimate(CHAT, args)
    assert (found.model, found.read, found.written, found.guessed) == (
        "gpt-4o-mini",
        len(json.dumps(args)) + 200,
        300,
        False,
    )
    assert found.micros == -(-(found.read * 150_000 + 300 * 600_000) // 1_000_000)


@pytest.mark.parametrize(
    ("tool", "args", "written"),
    [
        (CHAT, {"model": "gpt-4o", "messages": HI, "max_tokens": 7}, 7),
        (CHAT, {"model": "gpt-4o", "messages": HI, "max_tokens": 9, "max_completion_tokens": 7}, 7),
        (RESPONSES, {"model": "gpt-4o", "input": "hi", "max_output_tokens": 50}, 50),
        (MESSAGES, {"model": "claude-opus-4-5", "messages": HI, "max_tokens": 64}, 64),
        ("openai.completions.create", {"model": "gpt-4o", "prompt": "x"}, 16),
        (
            "openai.completions.create",
            {"model": "gpt-4o", "prompt": ["x", "y"], "max_tokens": 5, "best_of": 4, "n": 2},
            40,
        ),
        ("openai.embeddings.create", {"model": "text-embedding-3-small", "input": "x"}, 0),
    ],
)
def test_where_vendors_have_the_maximum_said(tool: str, args: Any, written: int) -> None:
    found = estimate(tool, args)
    assert (found.written, found.guessed) == (written, False)


@pytest.mark.parametrize("most", [None, -1, "100", 1.5, True, 2**50])
def test_a_maximum_that_is_none_is_guessed(most: object) -> None:
    found = estimate(CHAT, {"model": "gpt-4o", "messages": HI, "max_tokens": most})
    assert (found.written, found.guessed) == (WRITTEN.start, True)


@pytest.mark.parametrize("n", [0, -1, "3", 10**9, True])
def test_how_many_answers_cannot_be_told_and_neither_can_the_maximum(n: object) -> None:
    found = estimate(CHAT, {"model": "gpt-4o", "messages": HI, "max_tokens": 5, "n": n})
    assert (found.written, found.guessed) == (WRITTEN.start, True)


def test_the_policy_says_it_where_a_request_does_not() -> None:
    args = {"model": "gpt-4o", "messages": HI, "n": 2}
    assert estimate(CHAT, args, "sized").written == 1000
    assert estimate(CHAT, {**args, "max_tokens": 3}, "sized").written == 6


def test_calls_before_say_it_where_nobody_does() -> None:
    args = {"model": "gpt-4o", "messages": HI}
    asked = []

    def learned(model: str, what: str) -> int | None:
        asked.append((model, what))
        return 2000

    assert estimate(CHAT, {**args, "model": "gpt-4o-2024-08-06"}, learned=learned).written == 2500
    assert estimate(CHAT, {**args, "model": "of-tomorrow"}, learned=learned).written == 2500
    assert asked == [("gpt-4o", "written"), (UNNAMED, "written")]
    assert estimate(CHAT, args, learned=lambda *_: 10**9).written == 16_384, "no more than the model can write"
    assert estimate(CHAT, args, learned=lambda *_: 1).written == WRITTEN.floor


ELSEWHERE = [
    (RESPONSES, {"previous_response_id": "resp_1", "input": "hi"}),
    (RESPONSES, {"conversation": "conv_1", "input": "hi"}),
    (RESPONSES, {"prompt": {"id": "p"}, "input": "hi"}),
    (RESPONSES, {"input": "hi", "tools": [{"type": "web_search"}]}),
    (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x.example/a"}]}]},
    ),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example"}}]}]},
    ),
    (CHAT, {"messages": HI, "web_search_options": {}}),
    (CHAT, {"messages": "nothing that the vendor documents"}),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}]}),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file"}}]}]}),
    (MESSAGES, {"messages": HI, "tools": [{"type": "web_search_20250305", "name": "s"}]}),
    (MESSAGES, {"messages": HI, "mcp_servers": [{"url": "https://x.example"}]}),
]
HERE = [
    (RESPONSES, {"input": "hi", "tools": [{"type": "function", "name": "f"}]}),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}),
    (RESPONSES, {"input": [{"role": "user", "content": "hi"}, {"type": "function_call_output", "output": "x"}]}),
    (
        CHAT,
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "tool_calls": []},
            ]
        },
    ),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "tools": [{"name": "f"}]}),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text"}]}]}]}),
]


@pytest.mark.parametrize(("tool", "args"), ELSEWHERE)
def test_what_does_not_stand_in_the_request_is_read_too(tool: str, args: Any) -> None:
    model = "claude-opus-5" if tool == MESSAGES else "gpt-4.1"
    whole = {"model": model, "max_tokens": 5, "max_output_tokens": 5, **args}
    found = estimate(tool, whole)
    assert found.guessed
    assert found.read >= READ.start
    assert estimate(tool, whole, learned=lambda *_: 10**9).read <= 1_100_000, "no more than the model can read"


@pytest.mark.parametrize(("tool", "args"), HERE)
def test_what_stands_in_the_request_is_bounded_by_its_bytes(tool: str, args: Any) -> None:
    found = estimate(tool, {"model": "gpt-4.1", "max_tokens": 5, "max_output_tokens": 5, **args})
    assert not found.guessed
    assert found.read < 1500


def test_no_more_is_read_than_the_model_can() -> None:
    found = estimate(
        CHAT, {"model": "gpt-4o", "messages": [{"role": "user", "content": "x" * 200_000}], "max_tokens": 1}
    )
    assert found.read == 128_000


def test_tiers_of_service_are_paid_for() -> None:
    args = {"model": "gpt-4o", "messages": HI, "max_tokens": 5}
    plain = estimate(CHAT, args)
    assert estimate(CHAT, {**args, "service_tier": "priority"}).tiers == ("priority",)
    assert estimate(CHAT, {**args, "service_tier": "priority"}).micros > 2 * plain.micros
    assert estimate(CHAT, {**args, "service_tier": {}}).micros > 2 * plain.micros, "one that cannot be told is dear"
    fast = estimate(
        MESSAGES, {"model": "claude-opus-4-6", "messages": HI, "max_tokens": 5, "speed": "fast", "inference_geo": "us"}
    )
    assert fast.tiers == ("fast", "us")


def test_without_a_book_tokens_are_counted_and_cost_nothing() -> None:
    found = estimate(CHAT, {"model": "gpt-4o", "messages": HI, "max_tokens": 5}, "bare")
    assert (found.micros, found.written) == (0, 5)


def test_a_tool_that_uses_nothing_has_no_estimate() -> None:
    service = builtin("openai")
    assert service is not None
    models = service.tools["openai.models.list"]
    assert estimated((Action(models.name, "read", {}, models, service),), connection("openai"), 0, TODAY) is None


def test_arguments_that_cannot_be_told_are_worth_the_most() -> None:
    service = builtin("openai")
    assert service is not None
    found = estimated((Action(CHAT, "write", None, service.tools[CHAT], service),), connection("openai"), 10, TODAY)
    assert found is not None
    assert (found.model, found.guessed) == (None, True)
    assert found.micros >= WRITTEN.start * 600


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=60))
def test_a_maximum_fades_and_is_never_below_the_last_call(counts: list[int]) -> None:
    maximum: int | None = None
    for count in counts:
        before, maximum = maximum, seen(maximum, count)
        assert maximum >= count
        assert maximum <= max(count, before or 0)
        if before is not None and count < before:
            assert maximum < before


@given(st.none() | st.integers(0, 2**40), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_a_guess_is_between_floor_and_ceiling(maximum: int | None, floor: int, more: int, most: int) -> None:
    bounds = Bounds(start=floor + more, floor=floor, ceiling=floor + more + most)
    assert bounds.floor <= guess(maximum, bounds) <= bounds.ceiling
