"""Every vector, named by its attack. An unknown key in a vector is a failure, so that none is silently not checked."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.http.errors import RequestRefused, ResponseRefused
from proxy.http.request import RequestParser
from proxy.http.response import ResponseParser
from proxy.http.target import (
    check_query,
    normalise_host,
    normalise_path,
    parse_connect_target,
    parse_host_header,
    resolve_target,
)
from rules.codes import Code

FOLDER = Path(__file__).parent / "vectors"


def load(file: str, keys: set[str], optional: frozenset[str] = frozenset()) -> list[Any]:
    cases = json.loads((FOLDER / f"{file}.json").read_text(encoding="ascii"))
    assert cases.keys() == {"about", "cases"}
    for case in cases["cases"]:
        assert case.keys() >= keys | {"name"}, case
        assert case.keys() <= keys | optional | {"name"}, case
        assert case.get("code") is None or Code(case["code"])
    return [pytest.param(case, id=f"{file}: {case['name']}") for case in cases["cases"]]


def raw(case: dict[str, Any]) -> bytes:
    return (case["bytes"] + case.get("repeat", "") * case.get("times", 1)).encode("latin-1")


REQUESTS = [
    case
    for file in ("request_line", "framing", "headers", "upgrades", "door")
    for case in load(file, {"bytes", "code"}, frozenset({"repeat", "times", "body", "left", "keep_alive", "door"}))
]


def read_request(case: dict[str, Any], step: int) -> tuple[str | None, RequestParser, bytes]:
    """The refusal's code, the parser, and the body, after feeding the bytes `step` at a time."""
    data, body = raw(case), b""
    parser = RequestParser(connect=case.get("door", False))
    try:
        for at in range(0, len(data), step):
            parser.feed(data[at : at + step])
            body += parser.take_body()
    except RequestRefused as refusal:
        return refusal.code.value, parser, body
    return None, parser, body


@pytest.mark.parametrize("step", [1 << 20, 1, 7], ids=["at once", "by byte", "by seven"])
@pytest.mark.parametrize("case", REQUESTS)
def test_request(case: dict[str, Any], step: int) -> None:
    code, parser, body = read_request(case, step)
    assert code == case["code"]
    if code is not None:
        with pytest.raises(RequestRefused) as again:
            parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert again.value.close, "after a syntax error the framing cannot be trusted"
        return
    assert parser.complete
    assert parser.head is not None
    assert body == case.get("body", "").encode("latin-1")
    assert parser.take_tunnel_bytes() == case.get("left", "").encode("latin-1")
    assert parser.head.keep_alive == case.get("keep_alive", parser.head.version == "HTTP/1.1")


@pytest.mark.parametrize("case", load("hosts", {"host", "value"}))
def test_host(case: dict[str, Any]) -> None:
    check(lambda: normalise_host(case["host"].encode("latin-1")), case["value"])


@pytest.mark.parametrize("case", load("authorities", {"authority", "value"}))
def test_authority(case: dict[str, Any]) -> None:
    authority = case["authority"].encode("latin-1")
    value = None if case["value"] is None else tuple(case["value"])
    check(lambda: parse_host_header(authority, 80), value)
    if value is not None and authority.endswith(b":%d" % value[1]):
        assert parse_connect_target(authority) == value
    else:
        check(lambda: parse_connect_target(authority), None)


@pytest.mark.parametrize("case", load("paths", {"path", "value"}))
def test_path(case: dict[str, Any]) -> None:
    check(lambda: normalise_path(case["path"].encode("latin-1")), case["value"])
    if case["value"] is not None:
        assert normalise_path(case["value"].encode("ascii")) == case["value"], "the normal form is its own normal form"


def check(judge: Any, value: object, code: Code = Code.AMBIGUOUS_TARGET) -> None:
    if value is not None:
        assert judge() == value
        return
    with pytest.raises(RequestRefused) as refused:
        judge()
    assert refused.value.code is code


@pytest.mark.parametrize("case", load("queries", {"query", "code"}))
def test_query(case: dict[str, Any]) -> None:
    query = case["query"]
    if case["code"] is None:
        check(lambda: check_query(query.encode("latin-1")), query)
    else:
        check(lambda: check_query(query.encode("latin-1")), None, Code(case["code"]))


@pytest.mark.parametrize("case", load("destinations", {"target", "host", "tunnel", "code", "value"}))
def test_destination(case: dict[str, Any]) -> None:
    def judge() -> list[object]:
        parser = RequestParser(connect=case["tunnel"] is None)
        parser.feed(f"GET {case['target']} HTTP/1.1\r\nHost: {case['host']}\r\n\r\n".encode("latin-1"))
        assert parser.head is not None
        target = resolve_target(parser.head, tunnel=None if case["tunnel"] is None else tuple(case["tunnel"]))
        return [target.scheme, target.host, target.port, target.path, target.query]

    check(judge, case["value"], Code(case["code"] or Code.AMBIGUOUS_TARGET))


RESPONSES = load(
    "responses",
    {"bytes", "refused", "method"},
    frozenset({"status", "body", "reusable", "surplus", "eof"}),
)


@pytest.mark.parametrize("step", [1 << 20, 1, 7], ids=["at once", "by byte", "by seven"])
@pytest.mark.parametrize("case", RESPONSES)
def test_response(case: dict[str, Any], step: int) -> None:
    data, body = raw(case), b""
    parser = ResponseParser(case["method"])

    def read() -> None:
        nonlocal body
        for at in range(0, len(data), step):
            parser.feed(data[at : at + step])
            body += parser.take_body()
        if "eof" in case:
            parser.eof(clean=case["eof"] == "clean")

    if case["refused"]:
        with pytest.raises(ResponseRefused):
            read()
        with pytest.raises(ResponseRefused):
            parser.eof()
        return
    read()
    assert parser.complete
    assert parser.head is not None
    assert parser.head.status == case["status"]
    assert body == case["body"].encode("latin-1")
    assert parser.reusable == case["reusable"]
    assert parser.surplus == case.get("surplus", False)
