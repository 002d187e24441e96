"""Agents that keep their connections and live for longer than three of their credentials: no call fails."""

import sys
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.clients.conftest import WORDS, Clients
from tests.worlds.product import Done

LIFETIME = "3s"
SECONDS = 10.0
PAUSED = """
import requests, sys, time
ends, calls = time.monotonic() + float(sys.argv[1]), 0
with requests.Session() as session:
    while time.monotonic() < ends:
        answer = session.post("https://saas.test/items/paused", json={"n": calls}, timeout=20)
        assert answer.status_code == 200, answer.text
        calls += 1
        time.sleep(0.3)
print(calls)
"""
BUSY = """
import openai, sys, time
client = openai.OpenAI(api_key="none", max_retries=0, timeout=20)
ends, calls = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < ends:
    client.chat.completions.create(model="m", messages=[])
    calls += 1
print(calls)
"""
STREAM = """
import openai
client = openai.OpenAI(api_key="none", max_retries=0, timeout=20)
for chunk in client.chat.completions.create(model="m", messages=[], stream=True):
    print(chunk.choices[0].delta.content, flush=True)
"""


def test_a_keep_alive_session_and_a_busy_sdk_outlive_three_credentials_each(clients: Clients) -> None:
    how = {"account": "agent", "options": ("--ttl", LIFETIME)}
    runs = [clients.product.spawn(sys.executable, "-c", script, str(SECONDS), **how) for script in (PAUSED, BUSY)]
    for run in runs:
        out, err = run.communicate(timeout=60)
        done = Done(run.returncode, out.decode(), err.decode()).ok()
        agents = [record["agent"] for record in clients.of_run(done, "call.intent", "call.denied", "call.rejected")]
        assert len(agents) == int(done.out), "each call is one attempt, and none was refused"
        used = {agent["credential"] for agent in agents}
        assert len(used) >= 4, "it did not outlive three lifetimes"
        issued = [r for r in clients.product.records("token.issue") if r["run"] == agents[0]["run"]]
        assert used <= {record["credential"] for record in issued}
        assert all(record["expires"] <= datetime.fromisoformat(record["ts"]).timestamp() + 3 for record in issued)


def test_a_stream_outlives_the_credential_it_began_with(clients: Clients) -> None:
    clients.second_word.clear()
    run = clients.product.spawn(sys.executable, "-c", STREAM, account="agent", options=("--ttl", LIFETIME))
    assert run.stdout is not None
    assert run.stdout.readline().decode() == f"{WORDS[0]}\n"
    time.sleep(3.5)
    clients.second_word.set()
    out, err = run.communicate(timeout=30)
    Done(run.returncode, out.decode(), err.decode()).ok()
    assert out.decode() == "".join(f"{word}\n" for word in WORDS[1:])


@pytest.fixture(autouse=True)
def _words(clients: Clients) -> Iterator[None]:
    """No stream of another test waits for its second word."""
    yield
    clients.second_word.set()
