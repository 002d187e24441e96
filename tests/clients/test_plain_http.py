"""Plain http: in absolute-form, to a connection whose policy says so with `unsafe_plaintext`, and nowhere else."""

import json

import pytest

from tests.clients.conftest import SECRETS, Clients

REQUESTS = (
    "import requests, sys; answer = requests.get(sys.argv[1], timeout=20); print(answer.status_code, answer.text)"
)


def test_a_connection_that_allows_it_is_reached_in_absolute_form(clients: Clients) -> None:
    done = clients.python(REQUESTS, "http://plain.test/items/requests?q=1").ok()
    assert done.out.strip() == '200 {"ok":true}'
    (seen,) = clients.plain.seen("/items/requests")
    assert (seen.target, seen.header("host")) == ("/items/requests?q=1", "plain.test")
    assert seen.header("authorization") == f"Bearer {SECRETS['saas'].decode()}"
    assert seen.header("proxy-authorization") is None
    clients.reveals_nothing(done)
    (intent,) = clients.of_run(done, "call.intent", "call.denied")
    assert (intent["op"]["scheme"], intent["op"]["connector"]) == ("http", "plain")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        pytest.param("http://saas.test/items/1", "destination_unknown", id="http to an https connection"),
        pytest.param("http://saas.test:443/items/1", "destination_unknown", id="http to the https port"),
        pytest.param("https://plain.test/items/1", "destination_unknown", id="https to a plain connection"),
        pytest.param("https://plain.test:80/items/1", "destination_unknown", id="https to the plain port"),
        pytest.param("http://plain.test/elsewhere", "not_allowed", id="a path that no rule allows"),
        pytest.param("http://169.254.169.254/latest", "destination_unknown", id="a cloud's metadata"),
    ],
)
def test_everything_else_in_plain_http_is_refused_readably(clients: Clients, url: str, code: str) -> None:
    before = len(clients.plain.origin.connections), len(clients.tls.origin.connections)
    done = clients.python(REQUESTS, url).ok()
    status, _, body = done.out.partition(" ")
    assert (status, json.loads(body)["code"]) == ("403", code)
    (denied,) = clients.of_run(done, "call.intent", "call.denied", "call.rejected")
    assert denied["decision"]["reasons"][0]["code"] == code
    assert (len(clients.plain.origin.connections), len(clients.tls.origin.connections)) == before


@pytest.mark.wants("curl")
def test_plain_http_inside_a_tunnel_is_no_way_around(clients: Clients) -> None:
    before = len(clients.plain.origin.connections)
    done = clients.product.run(
        "curl", "-sS", "--proxytunnel", "http://plain.test/items/tunnel", account="agent"
    )  # fmt: skip
    assert done.code != 0
    (rejected,) = clients.of_run(done, "call.rejected", "call.intent", "call.denied")
    assert rejected["reason"]["code"] == "protocol_refused"
    assert len(clients.plain.origin.connections) == before
