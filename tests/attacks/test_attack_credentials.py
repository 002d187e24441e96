"""An agent's own credentials beside the connection's: of two the origin would pick one, of an account nobody named."""

from pathlib import Path

import pytest

from proxy.http.headers import CREDENTIALS
from tests.proxy.egress.test_wire_denied_keys import leaked_keys
from tests.worlds.authority import Authority
from tests.worlds.gate import Agent, running_gate, write_policy
from tests.worlds.origin import Origin
from tests.worlds.towns import POLICY, SECRET, town

pytestmark = pytest.mark.anyio


async def test_where_a_secret_is_attached_no_other_credential_reaches_the_origin(tmp_path: Path) -> None:
    mine = {name.decode(): f"mine-{number}" for number, name in enumerate(sorted(CREDENTIALS))}
    async with town(tmp_path) as here, here.agent() as agent:
        assert (
            await agent.request("GET", "/things/1", headers={**mine, "Proxy": "http://evil.example/"})
        ).status == 200
        # A punctuation twin of a guarded name is refused; of the others it goes with its name.
        assert (await agent.request("GET", "/things/1", headers={"ApiKey": "mine"})).status == 200
        for request in here.origin.requests:
            assert request.header("authorization") == f"Bearer {SECRET}"
            assert b"mine" not in request.raw
            assert b"evil" not in request.raw


@pytest.mark.parametrize(
    "query",
    [
        "access_token=mine",
        "a=1&access_token=mine",
        "a=1;access_token=mine",
        "ACCESS_TOKEN=mine",
        "access%5Ftoken=mine",
        "access_token[]=mine",
        "access-token=mine",
        "a=1%26access_token=mine",
    ],
)
async def test_nor_does_one_in_the_query(tmp_path: Path, query: str) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        answer = await agent.request("GET", f"/things/1?{query}")
        assert (answer.status, answer.code) == (400, "malformed_request")
        assert here.origin.connections == []
        (record,) = await here.gate.records("call.denied")
        assert record.body["decision"]["reasons"][0]["code"] == "malformed_request"


@pytest.mark.parametrize(
    ("service", "query", "status"),
    [
        ("google", "key=AIzaMine", 400),
        ("google", "alt=json&K%65y=AIzaMine", 400),
        ("google", "oauth_token=mine", 400),
        ("google", "keyword=x&pageToken=y", 200),
        ("slack", "token=xoxb-mine", 400),
        ("slack", "key=x", 200),
        ("openai", "key=x&token=y", 200),
    ],
)
async def test_nor_one_under_a_name_that_the_service_takes_it_by(
    tmp_path: Path, service: str, query: str, status: int
) -> None:
    """`key` is anybody's data, but beside Google's own credential it is a second one, of the agent's choice."""
    authority = Authority()
    async with Origin(authority.issue("saas.test")) as origin:
        text = POLICY.format(port=origin.port, limits="").replace("price:", f"service: {service}, price:")
        policy = write_policy(tmp_path / "p", text, {"ca.pem": authority.pem})
        async with running_gate(tmp_path, policy, secrets={"saas": SECRET}) as gate:
            async with Agent(gate, gate.world.token()) as agent:
                answer = await agent.request("GET", f"/things/1?{query}")
            assert answer.status == status
            assert len(origin.requests) == (status == 200)


async def test_the_leaked_key_of_an_authority_ends_at_the_gate(tmp_path: Path) -> None:
    """The whole way: the connection trusts that very root, the handshake succeeds, and no request follows."""
    authority = Authority("EM OV TLS CA - G3C", next(leaked_keys()))
    async with Origin(authority.issue("saas.test")) as origin:
        policy = write_policy(tmp_path / "p", POLICY.format(port=origin.port, limits=""), {"ca.pem": authority.pem})
        async with running_gate(tmp_path, policy, secrets={"saas": SECRET}) as gate:
            async with Agent(gate, gate.world.token()) as agent:
                answer = await agent.request("POST", "/things/1", b"{}")
            assert (answer.status, answer.code) == (502, "upstream_untrusted")
            assert not any(connection.received for connection in origin.connections)
            (outcome,) = await gate.records("call.outcome")
            assert outcome.body["result"]["status"] == "failed"
            assert outcome.body["result"]["sent"] is False
