"""The MCP SDK's client against its real server, through both doors. The policy says `service: mcp`."""

import pytest

from tests.clients.sdks.conftest import Sdks, soon
from tests.clients.sdks.test_pages import PAGES
from tests.clients.sdks.vendors import ADD_ALONE

PROGRAM = """
import anyio, httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
async def add(client):
    return await call(client, "add", {"a": 2, "b": 3})
async def call(client, tool, arguments):
    try: tell(sum=(await client.call_tool(tool, arguments)).structured_content)
    except MCPError as error:
        tell(number=error.code, text=error.message, code=error.data["code"], call=error.data["call"],
             wait=error.data.get("retry_after"))
        return error
async def main():
    async with reach("/mcp") as client:
        while (limited := await add(client)) is None: pass
        await anyio.sleep(limited.data["retry_after"])
        await add(client)
        await call(client, "remove", {"name": "everything"})
    try:
        async with reach("/elsewhere") as client: tell(unexpected=True)
    except* MCPError as error:
        while isinstance(error, ExceptionGroup): (error,) = error.exceptions
        tell(number=error.code, text=error.message, code=error.data["code"], call=error.data["call"])
anyio.run(main)
"""
THROUGH = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def reach(path):
    async with Client("https://mcp.test" + path) as client: yield client
"""
AT_THE_DOOR = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def reach(path):
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=20) as http:
        async with Client(streamable_http_client(f"{base}/tools{path}", http_client=http)) as client: yield client
"""


@pytest.mark.parametrize("door", ["proxy", "base"])
def test_mcp(sdks: Sdks, door: str) -> None:
    """Its error has our code and how long to wait; it does not try again by itself."""
    if door == "proxy":
        run = sdks.run(THROUGH + PROGRAM, account="tools")
    else:
        run = sdks.at_the_door(AT_THE_DOOR + PROGRAM, account="tools-door")
    *first, limited, second, other_tool, denied = run.told
    assert first, "the account's limit is above what it takes to make one call"
    assert [*first, second] == [{"sum": {"result": 5}}] * (len(first) + 1)
    assert (limited["number"], limited["code"], soon(limited["wait"])) == (429, "rate_limited", True)
    assert limited["text"].startswith("rate_limited: ")
    assert (denied["number"], denied["code"]) == (403, "not_allowed")
    assert (other_tool["number"], other_tool["code"]) == (403, "not_allowed")
    assert denied["text"].startswith("not_allowed: ")
    assert denied["call"] == run.records[-1]["call"]
    refused = [position for position, (_, verdict) in enumerate(run.verdicts()) if verdict == "rate_limited"]
    run.waited(*refused)


def test_the_rule_of_the_page_is_the_one_that_is_tested() -> None:
    assert ADD_ALONE in (PAGES / "mcp.md").read_text(encoding="utf-8")
