"""HTTP clients without a vendor: each gets through, reads a denial, and waits if it can, else is told how long.

`tests/clients/test_real_clients.py` has what requests, httpx2, curl and openai show beside this.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.clients.sdks.conftest import Run, Sdks, later, soon
from tests.clients.sdks.vendors import SECRET

ITEM = "https://saas.test/items/1"
OTHER = "https://saas.test/elsewhere"
OK = {"status": 200, "body": {"ok": True}}

REQUESTS = f"""
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry
patient = requests.Session()
patient.mount("https://", HTTPAdapter(max_retries=Retry(2)))
def see(answer): tell(status=answer.status_code, body=answer.json(), code=answer.headers.get("exeat-code"),
                      wait=answer.headers.get("retry-after"))
see(patient.get("{ITEM}", timeout=20))
error = refusal(lambda: patient.get("{OTHER}", timeout=20).raise_for_status(), requests.HTTPError)
see(error.response)
see(patient.get("{ITEM}", timeout=20))
see(requests.get("{ITEM}", timeout=20))
"""
URLLIB3 = f"""
import urllib3
url = urllib3.util.parse_url(os.environ["HTTPS_PROXY"])
proof = urllib3.make_headers(proxy_basic_auth=url.auth)
http = urllib3.ProxyManager(url.url, proxy_headers=proof, retries=urllib3.Retry(2, status_forcelist=[429]), timeout=20)
def see(answer): tell(status=answer.status, body=answer.json(), code=answer.headers.get("exeat-code"),
                      wait=answer.headers.get("retry-after"))
see(http.request("GET", "{ITEM}"))
see(http.request("GET", "{OTHER}"))
see(http.request("GET", "{ITEM}"))
see(http.request("GET", "{ITEM}", retries=False))
"""
HTTPX2 = f"""
import httpx2
client = httpx2.Client(timeout=20)
def see(answer): tell(status=answer.status_code, body=answer.json(), code=answer.headers.get("exeat-code"),
                      wait=answer.headers.get("retry-after"))
see(client.get("{ITEM}"))
error = refusal(lambda: client.get("{OTHER}").raise_for_status(), httpx2.HTTPStatusError)
see(error.response)
see(client.get("{ITEM}"))
"""
AIOHTTP = f"""
import aiohttp, asyncio
async def see(session, url):
    async with session.get(url) as answer:
        tell(status=answer.status, body=await answer.json(), code=answer.headers.get("exeat-code"),
             wait=answer.headers.get("retry-after"))
async def main():
    async with aiohttp.ClientSession(trust_env=True, timeout=aiohttp.ClientTimeout(20)) as session:
        for url in ("{ITEM}", "{OTHER}", "{ITEM}"):
            await see(session, url)
asyncio.run(main())
"""


def are_denied(told: dict[str, Any], limited: dict[str, Any], run: Run) -> None:
    assert (told["status"], told["code"], told["body"]["code"]) == (403, "not_allowed", "not_allowed")
    assert told["body"]["call"] == run.records[1]["call"]
    assert (limited["status"], limited["code"], limited["body"]["code"]) == (429, "rate_limited", "rate_limited")
    assert limited["wait"] == str(limited["body"]["retry_after"])


@pytest.mark.parametrize("client", [pytest.param(REQUESTS, id="requests"), pytest.param(URLLIB3, id="urllib3")])
def test_a_client_with_retries_waits_as_long_as_it_is_told(
    sdks: Sdks, client: str, request: pytest.FixtureRequest
) -> None:
    run = sdks.run(client, account=request.node.callspec.id)
    first, denied, second, limited = run.told
    assert OK.items() <= first.items()
    assert OK.items() <= second.items()
    are_denied(denied, limited, run)
    assert soon(limited["wait"])
    assert [verdict for _, verdict in run.verdicts()] == [
        "allow", "not_allowed", "rate_limited", "allow", "rate_limited",
    ]  # fmt: skip
    run.waited(2)
    assert {request.header("authorization") for request in run.requests} == {f"Bearer {SECRET}"}


@pytest.mark.parametrize("client", [pytest.param(HTTPX2, id="httpx2"), pytest.param(AIOHTTP, id="aiohttp")])
def test_a_client_without_retries_is_told_how_long_to_wait(
    sdks: Sdks, client: str, request: pytest.FixtureRequest
) -> None:
    run = sdks.run(client, account=request.node.callspec.id)
    first, denied, limited = run.told
    assert OK.items() <= first.items()
    are_denied(denied, limited, run)
    assert later(limited["wait"])
    assert [verdict for _, verdict in run.verdicts()] == ["allow", "not_allowed", "rate_limited"]
    assert {request.header("authorization") for request in run.requests} == {f"Bearer {SECRET}"}


@pytest.mark.wants("curl")
def test_curl_waits_as_long_as_it_is_told(sdks: Sdks) -> None:
    """A refusal's body comes before the answer of the second try, and no denial is tried again."""
    script = f"""
curl -sS --fail "{ITEM}" && echo
curl -sS --fail --retry 2 "{OTHER}"
[ $? = 22 ] && curl -sS --fail-with-body --retry 2 "{ITEM}"
"""
    run = sdks.command("sh", "-c", script, account="curl")
    assert [verdict for _, verdict in run.verdicts()] == ["allow", "not_allowed", "rate_limited", "allow"]
    run.waited(2)
    assert run.done.out.endswith('{"ok": true}')
    assert '"code":"rate_limited"' in run.done.out


@pytest.mark.wants("git")
def test_git_shows_the_code_of_a_rate_limit_and_how_long_to_wait(sdks: Sdks, tmp_path: Path) -> None:
    quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    clone = ("git", "clone", "-q", "https://github.com/acme/tools.git")
    run = sdks.command(*clone, str(tmp_path / "one"), account="git", env=quiet)
    assert run.verdicts() == [("git", "allow")] * 3
    assert (tmp_path / "one" / "README").exists()
    run = sdks.command(*clone, str(tmp_path / "two"), account="git", code=128, env=quiet)
    assert run.verdicts() == [("git", "rate_limited")]
    assert "The requested URL returned error: 429" in run.done.err
    assert re.search(r"remote: rate_limited: .*", run.done.err), run.done.err
