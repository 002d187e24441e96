"""What a refused program reads."""

import json

import pytest

from proxy.denials import Denial
from rules.codes import TABLE, Category, Code
from rules.decision import Reason
from rules.services.mcp import MCP


def parse(raw: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
    head, _, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    assert int(headers["content-length"]) == len(body)
    return int(status_line.split(" ")[1]), headers, json.loads(body)


@pytest.mark.parametrize("code", list(Code))
def test_every_code_renders_as_problem_details(code: Code) -> None:
    """RFC 9457 with permanent members, the same code in header and body."""
    raw = Denial(Reason(code, "why", "rule-1"), "c_1", "sha256:0", 7).render(in_tunnel=False, keep_alive=True)
    status, headers, body = parse(raw)
    assert headers["content-type"] == "application/problem+json"
    assert headers["exeat-code"] == body["code"] == code.value
    assert headers["exeat-call"] == body["call"] == "c_1"
    assert body["status"] == status == TABLE[code].status
    assert body["rule"] == "rule-1"
    assert body["retry_after"] == 7
    assert headers["retry-after"] == "7"
    assert "connection" not in headers


@pytest.mark.parametrize("code", list(Code))
def test_no_denial_is_a_success_and_retries_are_only_invited_where_right(code: Code) -> None:
    """An SDK reports any 2xx as done, and retries 408, 409, 429 and 5xx unless told not to."""
    _, headers, _ = parse(Denial(Reason(code, "why"), "c_1").render(in_tunnel=True, keep_alive=False))
    status = TABLE[code].status
    assert status >= 400
    transient = TABLE[code].category is Category.TRANSIENT
    assert ("x-should-retry" not in headers) == transient
    if not transient:
        assert status not in {408, 409, 429}
    assert headers["connection"] == "close"


def test_inside_a_tunnel_a_credential_is_asked_for_as_an_origin_would() -> None:
    denial = Denial(Reason(Code.CREDENTIAL_EXPIRED, "expired"), "c_1")
    status, headers, _ = parse(denial.render(in_tunnel=True, keep_alive=False))
    assert (status, "www-authenticate" in headers, "proxy-authenticate" in headers) == (401, True, False)
    status, headers, _ = parse(denial.render(in_tunnel=False, keep_alive=False))
    assert (status, "www-authenticate" in headers, "proxy-authenticate" in headers) == (407, False, True)


def test_the_answer_to_head_has_no_body() -> None:
    raw = Denial(Reason(Code.NOT_ALLOWED, "no"), "c_1").render(in_tunnel=True, keep_alive=True, head_only=True)
    assert raw.endswith(b"\r\n\r\n")
    assert raw.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    ("request_id", "told"), [(7, 7), ("abc", "abc"), (0, 0), (None, None), ("x" * 128, "x" * 128), ("x" * 129, None)]
)
def test_a_json_rpc_request_is_answered_by_its_id(request_id: str | int | None, told: str | int | None) -> None:
    denial = Denial(Reason(Code.NOT_ALLOWED, "no"), "c_1", service=MCP, request_id=request_id)
    status, headers, body = parse(denial.render(in_tunnel=True, keep_alive=True))
    assert (status, headers["content-type"]) == (403, "application/json")
    assert (body["jsonrpc"], body["id"]) == ("2.0", told)
    error = body["error"]
    assert isinstance(error, dict)
    assert (error["code"], error["data"]["code"]) == (403, "not_allowed")
