"""Real clients, as users have them, with only what `exeat run` sets: each gets through, and each can read its denial.

Every client prints all that it can see, so that a secret in its reach would be in the output.
"""

import json
import re
import sys
from datetime import datetime
from typing import Any

import pytest

from tests.clients.conftest import SECRETS, WORDS, Clients
from tests.worlds.product import Done

type Record = dict[str, Any]

SEE = """
import os, sys
def see(answer):
    print(answer.status_code, dict(answer.headers), answer.text, dict(os.environ))
"""
REQUESTS = f"{SEE}\nimport requests\nsee(requests.get(sys.argv[1], timeout=20))"
HTTPX2 = f"{SEE}\nimport httpx2\nsee(httpx2.get(sys.argv[1], timeout=20))"
OPENAI = """
import json, sys, openai
client = openai.OpenAI(api_key="an-agent-needs-none", timeout=20)
ask = dict(model="m", messages=[{"role": "user", "content": "hello"}])
def show(error):
    print(json.dumps({"type": type(error).__name__, "status": error.status_code, "code": error.code,
                      "body": error.body, "headers": dict(error.response.headers)}))
"""


def only_call(clients: Clients, done: Done) -> str:
    (intent,) = clients.of_run(done, "call.denied", "call.intent", "call.rejected")
    assert intent["type"] == "call.intent"
    return str(intent["call"])


def only_denial(clients: Clients, done: Done, code: str) -> Record:
    """The run made this one denied call and none that left: no client tried again by itself."""
    (denied,) = clients.of_run(done, "call.denied", "call.intent", "call.rejected")
    assert [reason["code"] for reason in denied["decision"]["reasons"]] == [code]
    return denied


@pytest.mark.wants("curl")
def test_curl_gets_through_and_never_sees_the_secret(clients: Clients) -> None:
    done = clients.product.run("sh", "-c", "curl -sS -v https://saas.test/items/curl; env", account="agent").ok()
    assert '{"ok":true}' in done.out
    (request,) = clients.tls.seen("/items/curl")
    assert request.header("authorization") == f"Bearer {SECRETS['saas'].decode()}"
    clients.reveals_nothing(done)


@pytest.mark.wants("curl")
def test_curl_reads_the_code_in_body_and_headers(clients: Clients) -> None:
    done = clients.product.run("curl", "-sS", "-i", "https://saas.test/elsewhere/curl", account="agent").ok()
    head, _, body = done.out.rpartition("\r\n\r\n")
    assert "HTTP/1.1 403" in head
    assert re.search(r"(?mi)^exeat-code: not_allowed\s*$", head)
    problem = json.loads(body)
    denied = only_denial(clients, done, "not_allowed")
    assert (problem["code"], problem["status"], problem["call"]) == ("not_allowed", 403, denied["call"])
    assert clients.product.run("curl", "-sS", "--fail", "https://saas.test/elsewhere/curl", account="agent").code == 22
    assert clients.tls.seen("/elsewhere/curl") == []


@pytest.mark.parametrize("client", [pytest.param(REQUESTS, id="requests"), pytest.param(HTTPX2, id="httpx2")])
def test_a_python_client_gets_through_and_reads_its_denials(
    clients: Clients, client: str, request: pytest.FixtureRequest
) -> None:
    item = request.node.callspec.id
    done = clients.python(client, f"https://saas.test/items/{item}").ok()
    assert done.out.startswith("200 ")
    assert '{"ok":true}' in done.out
    (seen,) = clients.tls.seen(f"/items/{item}")
    assert seen.header("authorization") == f"Bearer {SECRETS['saas'].decode()}"
    clients.reveals_nothing(done)
    for path, code, rule in (("/elsewhere", "not_allowed", None), ("/items/frozen", "rule_denied", "frozen")):
        done = clients.python(client, f"https://saas.test{path}").ok()
        assert done.out.startswith("403 ")
        assert f"'{code}'" in done.out
        assert f'"code":"{code}"' in done.out
        assert (f'"rule":"{rule}"' in done.out) == (rule is not None)
        only_denial(clients, done, code)
    done = clients.python(client, "https://unknown.example/x").ok()
    assert '"code":"destination_unknown"' in done.out, "a name outside of the policy is refused readably as well"
    only_denial(clients, done, "destination_unknown")
    assert clients.tls.seen("/elsewhere") == clients.tls.seen("/items/frozen") == []


def test_the_openai_sdk_completes_a_chat(clients: Clients) -> None:
    done = clients.python(f"{OPENAI}\nprint(client.chat.completions.create(**ask).choices[0].message.content)").ok()
    assert done.out.strip() == "".join(WORDS)
    assert [r["attempt"] for r in clients.of_run(done, "call.intent")] == [1]
    seen = clients.tls.seen("/v1/chat/completions")[-1]
    assert seen.header("authorization") == f"Bearer {SECRETS['openai'].decode()}"
    assert b"an-agent-needs-none" not in seen.raw
    clients.reveals_nothing(done)


def test_the_openai_sdk_reads_a_stream_as_it_comes(clients: Clients) -> None:
    """The origin sends the second word only after the program has shown the first: nothing holds a stream back."""
    script = f"""{OPENAI}
import os
print(sorted(os.environ.items()))
for chunk in client.chat.completions.create(stream=True, **ask):
    print(chunk.choices[0].delta.content, flush=True)
"""
    clients.second_word.clear()
    run = clients.product.spawn(sys.executable, "-c", script, account="agent")
    assert run.stdout is not None
    environment, first = run.stdout.readline().decode(), run.stdout.readline().decode()
    assert first == f"{WORDS[0]}\n"
    clients.second_word.set()
    out, err = run.communicate(timeout=30)
    assert out.decode() == "".join(f"{word}\n" for word in WORDS[1:])
    done = Done(run.returncode, environment + out.decode(), err.decode()).ok()
    clients.reveals_nothing(done)
    call = only_call(clients, done)
    (outcome,) = [record for record in clients.product.records("call.outcome") if record["call"] == call]
    assert (outcome["result"]["status"], outcome["result"]["http"]) == ("confirmed", 200)


def test_the_openai_sdk_raises_its_own_permission_error_with_our_code_and_does_not_try_again(clients: Clients) -> None:
    script = """
for call in (lambda: client.embeddings.create(model="m", input="x"), lambda: client.models.delete("m")):
    try: call()
    except openai.PermissionDeniedError as error: show(error)
"""
    done = clients.python(OPENAI + script).ok()
    first, second = (json.loads(line) for line in done.out.splitlines())
    for shown in (first, second):
        assert (shown["status"], shown["code"], shown["body"]["code"]) == (403, "not_allowed", "not_allowed")
        assert shown["headers"]["exeat-code"] == "not_allowed"
        assert shown["headers"]["x-should-retry"] == "false"
    denied = clients.of_run(done, "call.denied", "call.intent")
    assert [record["call"] for record in denied] == [first["body"]["call"], second["body"]["call"]]
    assert clients.tls.seen("/v1/embeddings") == clients.tls.seen("/v1/models") == []


def test_the_openai_sdk_waits_as_long_as_a_rate_limit_says_and_then_succeeds(clients: Clients) -> None:
    script = """
print(client.max_retries)
for _ in range(2): print(client.chat.completions.create(**ask).choices[0].message.content)
try: client.with_options(max_retries=0).chat.completions.create(**ask)
except openai.RateLimitError as error: show(error)
"""
    done = clients.python(OPENAI + script, account="slow").ok()
    retries, one, two, refused = done.out.splitlines()
    assert (retries, one, two) == ("2", "".join(WORDS), "".join(WORDS))
    refused = json.loads(refused)
    assert (refused["status"], refused["code"]) == (429, "rate_limited")
    assert int(refused["headers"]["retry-after"]) == refused["body"]["retry_after"] == 2
    records = clients.of_run(done, "call.denied", "call.intent")
    assert [record["decision"]["verdict"] for record in records] == ["allow", "deny", "allow", "deny"]
    # Its own pause would have been between 0.4 and 0.5 s: only Retry-After makes it wait for longer.
    assert seconds_between(records[1], records[2]) >= 1.0


def seconds_between(earlier: Record, later: Record) -> float:
    return (datetime.fromisoformat(later["ts"]) - datetime.fromisoformat(earlier["ts"])).total_seconds()
