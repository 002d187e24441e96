"""The official clients of MCP against the official everything server, through both doors.

The server keeps sessions and answers with event streams: what a server may do, this one does.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.clients.everything import Everything
from tests.clients.sdks import vendors
from tests.clients.sdks.conftest import Run, Sdks
from tests.clients.test_node_clients import Node, installed
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Done, running

pytestmark = pytest.mark.wants("npm")

OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
POLICY = """
exeat: 1
tenant: acme
credentials: {ttl: 1m, max_ttl: 5m}
connections:
  everything: {host: everything.test, dial: "127.0.0.1:%(port)d", ca: ca.pem, secret: vendors, service: mcp}
accounts:
  agent:
    owners: %(owners)s
    rules:
      - id: tools
        allow: [mcp.everything.echo, mcp.everything.get-sum, mcp.everything.trigger-long-running-operation]
      - {id: rest, allow: {connection: everything, effects: [read]}}
"""
PROGRAM = """
import anyio, httpx2, logging
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
async def main():
    async with reach() as client:
        await everything(client)
        try: await client.call_tool("get-env", {})
        except MCPError as error: tell(number=error.code, text=error.message, data=error.data)
        tell(again=(await client.call_tool("echo", {"message": "still"})).content[0].text)
async def everything(client):
    tell(server=client.server_info.name)
    tell(tools=[tool.name for tool in (await client.list_tools()).tools])
    tell(echo=(await client.call_tool("echo", {"message": "hello"})).content[0].text)
    tell(sum=(await client.call_tool("get-sum", {"a": 2, "b": 3})).content[0].text)
    steps = []
    async def progress(done, total, message): steps.append(done)
    long = {"duration": 0.2, "steps": 2}
    done = await client.call_tool("trigger-long-running-operation", long, progress_callback=progress)
    tell(steps=steps, long=done.content[0].text)
    tell(prompts=len((await client.list_prompts()).prompts))
    tell(prompt=(await client.get_prompt("simple-prompt")).messages[0].content.text)
    resources = (await client.list_resources()).resources
    tell(resources=len(resources))
    tell(resource=bool((await client.read_resource(resources[0].uri)).contents[0].text))
anyio.run(main)
"""
THROUGH = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def reach():
    async with Client("https://everything.test/mcp") as client: yield client
"""
AT_THE_DOOR = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def reach():
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=20) as http:
        async with Client(streamable_http_client(f"{base}/everything/mcp", http_client=http)) as client: yield client
"""
DOORS = ("proxy", "base")
SHOWN = ["echo", "get-sum", "trigger-long-running-operation"]


@dataclass
class Town:
    """The server, a product in front of it, and both SDKs."""

    sdks: Sdks
    node: Node
    server: Everything

    def python(self, door: str) -> Run:
        before = len(self.server.heard)
        if door == "proxy":
            run = self.sdks.run(THROUGH + PROGRAM, account="agent")
        else:
            run = self.sdks.at_the_door(AT_THE_DOOR + PROGRAM, account="agent")
        keys = [line.split()[1] for line in run.done.err.splitlines() if line.startswith("key ")]
        self.heard_the_secret_alone(before, *keys)
        return run

    def javascript(self, door: str) -> tuple[Done, list[dict[str, Any]]]:
        before = len(self.server.heard)
        done, told = self.node.run("mcp", door, "all")
        assert vendors.SECRET not in done.out + done.err
        self.heard_the_secret_alone(before, json.loads(done.err.splitlines()[1])["EXEAT_API_KEY"])
        return done, told

    def heard_the_secret_alone(self, before: int, *keys: str) -> None:
        heard = bytes(self.server.heard[before:])
        assert (
            heard.count(b"authorization: Bearer " + vendors.SECRET.encode()) == heard.count(b" HTTP/1.1\r\nhost:") > 0
        )
        assert not [key for key in keys if key.encode() in heard]
        assert b"eyJ" not in heard


@pytest.fixture(scope="module")
def here() -> Iterator[Town]:
    program = installed()
    with OriginThread(()) as origin, Everything(program, origin.authority, "everything.test") as server:
        policy = POLICY % {"port": server.port, "owners": OWNERS}
        secrets = {"vendors": vendors.SECRET.encode()}
        with running(policy=policy, files={"ca.pem": origin.authority.pem}, secrets=secrets) as product:
            yield Town(Sdks(product, []), Node(program, product, origin), server)


@pytest.mark.parametrize("door", DOORS)
def test_the_python_client_does_everything_and_reads_a_denial_as_a_json_rpc_error(here: Town, door: str) -> None:
    run = here.python(door)
    told = {name: value for one in run.told for name, value in one.items()}
    assert sorted(told["tools"]) == SHOWN, "what may not be called is not shown"
    assert told["echo"] == "Echo: hello"
    assert told["sum"] == "The sum of 2 and 3 is 5."
    assert told["steps"] == [1, 2]
    assert told["long"].startswith("Long running operation completed")
    assert told["prompt"] == "This is a simple prompt without arguments."
    assert told["prompts"] > 1
    assert told["resources"] > 1
    assert told["resource"] is True
    # A stream of the server's own, and the session's end, beside the calls.
    assert {record["op"]["method"] for record in run.records} == {"GET", "POST", "DELETE"}
    (denied,) = [record for record in run.records if record["type"] != "call.intent"]
    assert [reason["code"] for reason in denied["decision"]["reasons"]] == ["not_allowed"]
    assert (denied["op"]["tool"], denied["op"]["effect"]) == ("mcp.everything.get-env", "write")
    assert "mcp.everything.echo" in {record["op"]["tool"] for record in run.records}
    assert (told["number"], told["data"]["code"], told["data"]["call"]) == (403, "not_allowed", denied["call"])
    assert told["text"].startswith("not_allowed: ")
    assert told["again"] == "Echo: still", "the session has survived it"


@pytest.mark.parametrize("door", DOORS)
def test_the_typescript_client_does_it_and_raises_with_our_error_in_its_message(here: Town, door: str) -> None:
    """It makes an `McpError` of status 200 alone; so a program reads the body from the exception's message."""
    done, (tools, echo, long, raised, again) = here.javascript(door)
    assert sorted(tools["ok"]) == SHOWN
    assert echo == {"ok": "Echo: hello"}
    assert long["ok"][0] == [1, 2]
    records = here.node.of_run(done, "call.intent", "call.denied")
    assert {record["op"]["method"] for record in records} == {"GET", "POST", "DELETE"}
    (denied,) = [record for record in records if record["type"] == "call.denied"]
    assert (raised["raised"], raised["number"]) == ("StreamableHTTPError", 403)
    error = raised["answer"]["error"]
    assert (error["code"], error["data"]["code"], error["data"]["call"]) == (403, "not_allowed", denied["call"])
    assert again == {"ok": "Echo: still"}
