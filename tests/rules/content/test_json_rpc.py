"""JSON-RPC messages are read in one way or not at all. Vectors from JSON-RPC 2.0 and MCP's streamable HTTP."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.content.json_rpc import MAX_MESSAGES, Request, Response, read_json_rpc
from rules.content.refused import ContentRefused
from rules.content.strict_json import read_json


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
            [Request(1, "subtract", [42, 23])],
        ),
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": "3"}',
            [Request("3", "subtract", {"subtrahend": 23, "minuend": 42})],
        ),
        ('{"jsonrpc": "2.0", "method": "foobar"}', [Request(None, "foobar", {})]),
        ('{"jsonrpc": "2.0", "method": "a", "id": 0}', [Request(0, "a", {})]),
        ('{"jsonrpc": "2.0", "result": 19, "id": 1}', [Response(1)]),
        (
            '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}',
            [Response(None)],
        ),
        (
            '[{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
            ' {"jsonrpc": "2.0", "method": "get_data", "id": "9"}, {"jsonrpc": "2.0", "result": {}, "id": 9}]',
            [Request(None, "notify_hello", [7]), Request("9", "get_data", {}), Response(9)],
        ),
        (
            '{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "get_weather",'
            ' "arguments": {"location": "New York"}, "_meta": {"progressToken": 1.5}}}',
            [
                Request(
                    2,
                    "tools/call",
                    {"name": "get_weather", "arguments": {"location": "New York"}, "_meta": {"progressToken": 1.5}},
                )
            ],
        ),
        (
            '{"jsonrpc": "2.0", "method": "notifications/initialized"}',
            [Request(None, "notifications/initialized", {})],
        ),
        ('{"jsonrpc": "2.0", "id": 1, "result": {"action": "accept", "content": {}}}', [Response(1)]),
    ],
)
def test_what_is_read(text: str, messages: list[object]) -> None:
    assert list(read_json_rpc(read_json(text.encode()))) == messages


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "1",
        "[1]",
        "[[]]",
        "{}",
        '{"method": "a", "id": 1}',
        '{"jsonrpc": "1.0", "method": "a", "id": 1}',
        '{"jsonrpc": 2.0, "method": "a", "id": 1}',
        '{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
        '{"jsonrpc": "2.0", "method": "a", "params": null, "id": 1}',
        '{"jsonrpc": "2.0", "method": "a", "params": "bar"}',
        '{"jsonrpc": "2.0", "method": "a", "id": null}',
        '{"jsonrpc": "2.0", "method": "a", "id": 1.0}',
        '{"jsonrpc": "2.0", "method": "a", "id": 1.5}',
        '{"jsonrpc": "2.0", "method": "a", "id": true}',
        '{"jsonrpc": "2.0", "method": "a", "id": []}',
        '{"jsonrpc": "2.0", "method": "a", "id": 1, "extra": 1}',
        '{"jsonrpc": "2.0", "Method": "a", "id": 1}',
        '{"jsonrpc": "2.0", "method": "a", "id": 1, "result": 1}',
        '{"jsonrpc": "2.0", "result": 1, "error": {}, "id": 1}',
        '{"jsonrpc": "2.0", "result": 1, "id": null}',
        '{"jsonrpc": "2.0", "result": 1}',
        '{"jsonrpc": "2.0", "error": "no", "id": 1}',
        '{"jsonrpc": "2.0", "id": 1}',
        '[{"jsonrpc": "2.0", "method": "a", "id": 1}, {"foo": "boo"}]',
        '[{"jsonrpc": "2.0", "method": "a", "id": 1}, {"jsonrpc": "2.0", "method": "b", "id": 1}]',
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ContentRefused):
        read_json_rpc(read_json(text.encode()))


def test_a_batch_has_a_bounded_number_of_messages() -> None:
    message = {"jsonrpc": "2.0", "method": "a"}
    assert len(read_json_rpc([message] * MAX_MESSAGES)) == MAX_MESSAGES
    with pytest.raises(ContentRefused, match="more than"):
        read_json_rpc([message] * (MAX_MESSAGES + 1))


def test_fractions_are_doubles_as_in_every_other_body() -> None:
    (message,) = read_json_rpc(read_json(b'{"jsonrpc": "2.0", "method": "a", "params": {"b": [1.25, 1]}}'))
    assert isinstance(message, Request)
    assert isinstance(message.params, dict)
    (fraction, whole) = message.params["b"]  # type: ignore[misc, index]
    assert type(fraction) is float
    assert type(whole) is int


_SCALARS = st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text(max_size=4)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_NEARLY = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | _SCALARS},
    optional={
        "id": _JSON,
        "method": st.just("tools/call") | _JSON,
        "params": _JSON,
        "result": _JSON,
        "error": _JSON,
        "Id": _JSON,
    },
)


@given(_JSON | _NEARLY | st.lists(_NEARLY, max_size=3))
def test_any_value_is_messages_or_a_refusal(value: object) -> None:
    try:
        messages = read_json_rpc(value)  # type: ignore[arg-type]
    except ContentRefused:
        return
    assert len(messages) == (len(value) if isinstance(value, list) else 1)
    for message, written in zip(messages, value if isinstance(value, list) else [value], strict=True):
        assert isinstance(written, dict)
        assert isinstance(message, Request) == ("method" in written)
        assert message.id == written.get("id")
        if isinstance(message, Request):
            assert message.params == _with_doubles(written.get("params", {}))


def _with_doubles(value: object) -> object:
    match value:
        case Decimal():
            return float(value)
        case dict():
            return {name: _with_doubles(member) for name, member in value.items()}
        case list():
            return [_with_doubles(item) for item in value]
    return value
