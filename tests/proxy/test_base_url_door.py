"""Calls through the base-URL door of a real gate: the same pipeline, the same guarantees."""

import asyncio
import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credentials.actor import Actor
from credentials.revocation import Target, TargetKind
from proxy.config import GateConfig
from tests.proxy.test_deciding import Kept
from tests.worlds.gate import Agent, Answer
from tests.worlds.origin import Peer, Request, answers, reply
from tests.worlds.towns import SECRET, Town, town

pytestmark = pytest.mark.anyio


class BaseUrlAgent(Agent):
    """A raw agent at the base-URL door: plain bytes on one connection."""

    async def __aenter__(self) -> "BaseUrlAgent":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._world.port)
        return self

    async def call(
        self, path: str, method: str = "GET", body: bytes | None = None, fields: Mapping[str, str] | None = None
    ) -> Answer:
        """One request with the token where `fields` say, or as a bearer."""
        self.host, self.port = f"127.0.0.1:{self._world.port}", 443
        headers = fields if fields is not None else {"Authorization": f"Bearer {self._token}"}
        return await self.request(method, path, body, headers)


def at(here: Town, token: str | None = None) -> BaseUrlAgent:
    return BaseUrlAgent(here.gate, token or here.gate.world.token())


async def test_an_allowed_call_is_the_same_call_as_through_a_tunnel(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        async with at(here) as agent:
            answer = await agent.call("/to/saas/things/7?x=1", "POST", b'{"a":1}')
        assert (answer.status, json.loads(answer.body)) == (200, {"ok": True})
        (seen,) = here.origin.requests
        assert (seen.method, seen.target, seen.body) == ("POST", "/things/7?x=1", b'{"a":1}')
        assert seen.header("host") == "saas.test"
        assert seen.header("authorization") == f"Bearer {SECRET}"
        intent, outcome = await here.gate.records("call.intent", "call.outcome")
        assert answer.headers["exeat-call"] == intent.body["call"] == outcome.body["call"]
        assert intent.body["op"]["host"] == "saas.test"
        assert intent.body["op"]["route"] == "/things/**"
        assert outcome.body["result"]["status"] == "confirmed"


@pytest.mark.parametrize("place", ["x-api-key", "basic-user", "basic-password", "query", "proxy"])
async def test_the_credential_goes_no_further_wherever_it_stood(tmp_path: Path, place: str) -> None:
    kept = Kept()
    async with town(tmp_path, inputs=kept) as here:
        token = here.gate.world.token()
        target, fields = "/to/saas/things/7", {}
        if place == "query":
            target = f"/to/saas/things/7?a=1&key={token}"
        elif place == "x-api-key":
            fields = {"X-Api-Key": token}
        else:
            pair = f"{token}:" if place == "basic-user" else f"agent:{token}"
            name = "Proxy-Authorization" if place == "proxy" else "Authorization"
            fields = {name: "Basic " + base64.b64encode(pair.encode()).decode()}
        async with at(here, token) as agent:
            assert (await agent.call(target, fields=fields)).status == 200
        (told,) = kept.calls.values()
        assert token.encode() not in told.inputs
        (seen,) = here.origin.requests
        assert token.encode() not in seen.raw
        assert base64.b64encode(token.encode())[:40] not in seen.raw
        assert seen.header("authorization") == f"Bearer {SECRET}"
        assert seen.header("x-api-key") is None
        assert seen.target == ("/things/7?a=1" if place == "query" else "/things/7")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/to/saas/other", 403, "not_allowed"),
        ("/to/saas/things/secret/x", 403, "rule_denied"),
        ("/to/other/things/1", 403, "destination_unknown"),
        ("/to/saas/things/../other", 400, "ambiguous_target"),
        ("/things/1", 400, "ambiguous_target"),
        ("/to/saas/things/1?_method=DELETE", 400, "method_refused"),
    ],
)
async def test_what_is_refused_is_readable_and_recorded_with_its_agent(
    tmp_path: Path, target: str, status: int, code: str
) -> None:
    async with town(tmp_path) as here:
        async with at(here) as agent:
            answer = await agent.call(target)
        assert (answer.status, answer.code, json.loads(answer.body)["code"]) == (status, code, code)
        assert here.origin.connections == []
        (record,) = await here.gate.records("call.denied", "call.rejected")
        assert record.tenant == "acme"
        assert record.body["agent"]["id"] == "agent"
        if record.type == "call.rejected":
            assert record.body["door"] == "base-url"


async def test_without_a_credential_it_asks_for_one_as_an_origin_does(tmp_path: Path) -> None:
    """git sends its password only when asked, so this is no denial; 401, because to its SDK this is the service."""
    async with town(tmp_path) as here, at(here) as agent:
        answer = await agent.call("/to/saas/things/1", fields={})
        assert (answer.status, answer.code) == (401, "credential_missing")
        assert "Basic" in answer.headers["www-authenticate"]
        assert (await agent.call("/to/saas/things/1")).status == 200  # on the same connection
        assert await here.gate.records("call.rejected") == []
        assert here.gate.gate.metrics.challenges == 1


@pytest.mark.parametrize("kind", ["invalid", "expired", "revoked", "two"])
async def test_a_bad_credential_is_401_and_recorded(tmp_path: Path, kind: str) -> None:
    async with town(tmp_path) as here:
        world = here.gate.world
        token = world.token(ttl=1) if kind == "expired" else world.token()
        fields = {"Authorization": f"Bearer {token}"}
        if kind == "invalid":
            fields = {"Authorization": "Bearer sk_live_something"}
        elif kind == "two":
            fields["X-Api-Key"] = world.token()
        elif kind == "expired":
            await asyncio.sleep(1.2)
        elif kind == "revoked":
            target = Target(TargetKind.ACCOUNT, "acme", "agent")
            world.revocations = world.revocations.revoke(target, datetime.now(UTC), "test", Actor("uid", "1", "ana"))
        async with at(here) as agent:
            answer = await agent.call("/to/saas/things/1", fields=fields)
        assert answer.status == 401
        assert here.origin.connections == []
        (record,) = await here.gate.records("call.rejected")
        expected = {"expired": "credential_expired", "revoked": "credential_revoked"}.get(kind, "credential_invalid")
        assert record.body["reason"]["code"] == answer.code == expected


async def test_a_host_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    """A web page whose name was led to loopback, and an agent that takes this gate for the service itself."""
    async with town(tmp_path) as here:
        for host, expected in (("saas.test", 400), ("gate.test", 400), ("localhost:9", 200)):
            async with at(here) as agent:
                agent.host = host
                answer = await agent.request(
                    "GET", "/to/saas/things/1", headers={"Authorization": f"Bearer {here.gate.world.token()}"}
                )
                assert answer.status == expected, host
    config = GateConfig(listen=(("127.0.0.1", 0),), names=("gate.test",))
    async with town(tmp_path / "named", config=config) as here, at(here) as agent:
        agent.host = "gate.test"
        headers = {"Authorization": f"Bearer {here.gate.world.token()}"}
        assert (await agent.request("GET", "/to/saas/things/1", headers=headers)).status == 200


async def test_references_lead_back_to_the_door(tmp_path: Path) -> None:
    fields = (
        "Location: https://saas.test/things/8\r\nContent-Location: /things/7\r\n"
        'Link: </things?page=2>; rel="next"\r\nSet-Cookie: s=1; Domain=saas.test; Path=/\r\nLink: <https://x.test/>\r\n'
    )
    body = b'{"url": "https://saas.test/things/8"}'
    async with town(tmp_path, answers(reply(body, status="302 Found", headers=fields))) as here:
        async with at(here) as agent:
            answer = await agent.call("/to/saas/things/7")
            door = f"http://127.0.0.1:{here.gate.port}"
        async with here.agent() as tunnelled:
            untouched = await tunnelled.request("GET", "/things/7")
    assert answer.headers["location"] == f"{door}/to/saas/things/8"
    assert answer.headers["content-location"] == f"{door}/to/saas/things/7"
    assert answer.headers["set-cookie"] == "s=1; Path=/to/saas"
    assert answer.body == body  # never
    assert untouched.headers["location"] == "https://saas.test/things/8"
    assert untouched.headers["set-cookie"] == "s=1; Domain=saas.test; Path=/"


async def test_many_calls_on_one_connection_each_identified_anew(tmp_path: Path) -> None:
    async with town(tmp_path) as here, at(here) as agent:
        for number in range(3):
            assert (await agent.call(f"/to/saas/things/{number}")).status == 200
        assert (await agent.call("/to/saas/other")).status == 403
        stranger = await agent.call("/to/saas/things/1", fields={"Authorization": "Bearer eyJa.b.c"})
        assert (stranger.status, stranger.code) == (401, "credential_invalid")


async def test_a_stream_is_cut_by_a_revocation(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def script(_: Request, peer: Peer) -> None:
        await peer.send(head)
        for _ in range(400):
            await peer.send(b"5\r\nhello\r\n")
            await asyncio.sleep(0.02)

    async with town(tmp_path, script) as here, at(here) as agent:
        agent.host = "127.0.0.1"
        await agent.send("GET", "/to/saas/things/1", headers={"Authorization": f"Bearer {here.gate.world.token()}"})
        assert (await agent.read_head()).status == 200
        report = await asyncio.to_thread(here.gate.gate.cut, Target(TargetKind.ACCOUNT, "acme", "agent"))
        assert report.cut == 1
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await agent.reader.readexactly(1 << 20)


async def test_one_tenants_name_for_a_connection_is_nothing_to_another(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        async with at(here, here.gate.world.token(tenant="globex")) as agent:
            answer = await agent.call("/to/saas/things/1")
        assert (answer.status, answer.code) == (403, "no_policy")
        assert here.origin.connections == []
