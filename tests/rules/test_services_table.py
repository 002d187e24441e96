"""The table of services: every row keeps our members readable, and stops retries or needs no stopping."""

import json
from xml.etree import ElementTree

import pytest

from proxy.denials import Denial
from rules.codes import TABLE, Category, Code
from rules.decision import Reason
from rules.policy.load import parse_policy
from rules.policy.source import PolicyInvalid
from rules.services import NAMES, SERVICES, Service, named, of_host

DETAIL = "a < b & 'c' \"d\""
HOSTS = {
    "anthropic": "api.anthropic.com", "aws": "sqs.eu-west-1.amazonaws.com", "github": "api.github.com",
    "google": "www.googleapis.com", "openai": "api.openai.com", "slack": "slack.com", "stripe": "api.stripe.com",
    "twilio": "api.twilio.com",
}  # fmt: skip
FINAL = [code for code, entry in TABLE.items() if entry.category is not Category.TRANSIENT]


def answer(service: Service, code: Code, host: str = "", content_type: str = "") -> tuple[int, dict[str, str], bytes]:
    denial = Denial(Reason(code, DETAIL, "rule-1"), "c_1", "sha256:0", 7, service, host)
    raw = denial.render(in_tunnel=True, keep_alive=True, content_type=content_type)
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert int(headers["content-length"]) == len(body)
    once = [line for line in lines if not line.startswith("WWW-Authenticate")]
    assert len({line.partition(":")[0].lower() for line in once}) == len(once), "no field stands twice"
    return int(first.split(" ")[1]), headers, body


def test_the_table_is_in_order_and_no_host_is_two_services() -> None:
    assert list(NAMES) == sorted(set(NAMES))
    assert set(HOSTS) == {service.name for service in SERVICES if service.hosts}
    assert set(NAMES) - set(HOSTS) == {"mcp"}, "known by what a policy says alone"
    for name, host in HOSTS.items():
        assert [service.name for service in SERVICES if service.has(host)] == [name]
        assert of_host(host) is named(name)


@pytest.mark.parametrize("host", ["stripe.com.evil.example", "notstripe.com", "evilapi.openai.com", "amazonaws.com.x"])
def test_a_host_that_only_looks_like_a_services_is_none_of_its(host: str) -> None:
    assert of_host(host) is None


@pytest.mark.parametrize("code", list(Code))
@pytest.mark.parametrize("service", SERVICES, ids=NAMES)
def test_every_denial_has_our_members_in_its_body_and_headers(service: Service, code: Code) -> None:
    status, headers, body = answer(service, code, HOSTS.get(service.name, ""))
    assert (headers["exeat-code"], headers["exeat-call"], headers["retry-after"]) == (code, "c_1", "7")
    document = json.loads(body)
    ours = document["details"] if service.name == "twilio" else document
    assert (ours["code"], ours["call"], ours["rule"], ours["detail"]) == (code, "c_1", "rule-1", DETAIL)
    assert (ours["retry_after"], ours["category"]) == (7, TABLE[code].category)
    assert ours["status"] == status


@pytest.mark.parametrize("code", FINAL)
@pytest.mark.parametrize("service", SERVICES, ids=NAMES)
def test_what_no_retry_can_mend_stops_the_sdk_by_header_or_by_status(service: Service, code: Code) -> None:
    status, headers, _ = answer(service, code)
    assert headers["x-should-retry"] == "false"
    if service.stop is None:
        assert status < 500
    else:
        name, value = service.stop
        assert headers[name.lower()] == value


@pytest.mark.parametrize("code", [code for code in Code if code not in FINAL])
@pytest.mark.parametrize("service", SERVICES, ids=NAMES)
def test_what_a_retry_can_mend_keeps_its_status_and_stops_nobody(service: Service, code: Code) -> None:
    status, headers, _ = answer(service, code)
    assert status == TABLE[code].status
    assert not [name for name in headers if "should-retry" in name]


@pytest.mark.parametrize(
    ("host", "content_type", "path"),
    [
        pytest.param("sts.amazonaws.com", "application/x-www-form-urlencoded", "Error", id="query"),
        pytest.param("ec2.us-east-1.amazonaws.com", "application/x-www-form-urlencoded", "Errors/Error", id="ec2"),
        pytest.param("bucket.s3.eu-west-1.amazonaws.com", "", ".", id="s3"),
        pytest.param("s3-us-west-2.amazonaws.com", "application/octet-stream", ".", id="old s3"),
        pytest.param("route53.amazonaws.com", "", "Error", id="rest xml"),
    ],
)
def test_aws_is_answered_in_the_xml_of_the_protocol_that_was_spoken(host: str, content_type: str, path: str) -> None:
    aws = named("aws")
    assert aws is not None
    _, headers, body = answer(aws, Code.NOT_ALLOWED, host, content_type)
    assert headers["content-type"] == "text/xml"
    error = ElementTree.fromstring(body).find(path)
    assert error is not None
    assert error.findtext("Code") == "AccessDenied"
    assert error.findtext("Message") == f"not_allowed: {DETAIL}"
    assert (error.findtext("Exeat/code"), error.findtext("Exeat/call")) == ("not_allowed", "c_1")


def policy(connection: str) -> dict[str, bytes]:
    return {"acme.yaml": f"exeat: 1\ntenant: acme\nconnections:\n  models: {connection}\n".encode()}


def test_a_policy_names_a_service_and_a_wrong_name_is_told_with_the_right_one() -> None:
    (document,) = parse_policy(policy("{host: gateway.example, service: openai}")).documents
    assert document.connections["models"].service == "openai"
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(policy("{host: gateway.example, service: opnai}"))
    (error,) = caught.value.errors
    assert error.message == "service: not a service that is known by name"
    assert error.fix == "did you mean openai? Or put a file of the catalogue beside the policy"
    assert error.line == 4
