"""The page about spikes, on a running product: an account with a past is stopped, and goes on when it is resumed."""

import http.client
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.worlds.fleet import HOST, SECRET, Agent, agent_of, fleet, script
from tests.worlds.origin_thread import OriginThread
from tests.worlds.past import with_a_past
from tests.worlds.product import Product, running

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/spikes.md").read_text()
(LIMITS,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
POLICY = """\
exeat: 1
tenant: acme
connections:
  lab: {{host: saas.test, dial: "127.0.0.1:{port}", ca: lab-ca.pem, secret: lab, price: 1 USD}}
accounts:
  agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    rules: [{{id: all, allow: {{connection: lab, path: /**}}}}]
{limits}
  other:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    rules: [{{id: all, allow: {{connection: lab, path: /**}}}}]
"""


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    home = Path(tempfile.mkdtemp(prefix="exeat-p-"))
    with_a_past(home / "state")
    try:
        with OriginThread((HOST,), script) as origin:
            limits = "".join(f"    {line}\n" for line in LIMITS.splitlines())
            policy = POLICY.format(port=origin.port, limits=limits)
            files = {"lab-ca.pem": origin.authority.pem}
            with running(home, policy=policy, files=files, secrets={"lab": SECRET}) as it:
                yield it
    finally:
        shutil.rmtree(home, ignore_errors=True)


def until_stopped(agent: Agent, let_out: list[int]) -> None:
    deadline = time.monotonic() + 30
    while (answer := agent.get("/v1/x")).status == 200:
        let_out.append(answer.status)
        time.sleep(0.1)
        assert time.monotonic() < deadline, "it was not stopped"
    assert (answer.status, answer.code) == (403, "account_suspended")


def wait(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def acts(product: Product, act: str) -> list[dict[str, str]]:
    return [record["detail"] for record in product.records("operator.act") if record["act"] == act]


def test_it_is_stopped_and_goes_on_when_it_is_resumed(product: Product) -> None:
    agent, other = agent_of(product, "agent"), agent_of(product, "other")
    let_out: list[int] = []
    until_stopped(agent, let_out)
    assert len(let_out) > 3, "3 USD are not more than 3 times 1 USD"
    assert other.get("/v1/x").status == 200
    shown = product.cli("status").ok().out
    (line,) = [line for line in shown.splitlines() if line.startswith("SUSPENDED")]
    assert re.search(r"acme/agent  since 20\S+Z  \d+ USD in one hour, and 1 USD is usual", line)
    (told,) = [
        one for one in product.cli("alerts", "list", "--json").ok().json["alerts"] if one["kind"] == "spend.spike"
    ]
    assert "exeat resume account agent --tenant acme" in told["text"]
    assert [one["account"] for one in acts(product, "account.suspend")] == ["agent"]

    agent.close()
    other.close()
    product.stop()
    product.start()
    agent.host, agent.port = product.door()
    assert agent.get("/v1/x").code == "account_suspended", "over a restart, too"

    wrong = product.cli("resume", "account", "nobody", "--reason", "INC-204")
    assert (wrong.code, "nobody is not suspended" in wrong.err) == (1, True)
    done = product.cli("resume", "account", "agent", "--reason", "INC-204: a backfill, known").ok().out
    assert re.fullmatch(r"resumed  proof #\d+\n", done)
    assert agent.get("/v1/x").status == 200, "with the credential that it had"
    time.sleep(2)
    assert agent.get("/v1/x").status == 200, "not again for the same"
    assert product.status()["suspensions"] == []
    agent.close()
    trust = ("--trust", str(product.state / "trust.policy"))
    assert product.cli("ledger", "verify", str(product.state / "ledger"), *trust).out.startswith("INTACT")


def test_every_worker_refuses_and_control_may_die_meanwhile() -> None:
    home = Path(tempfile.mkdtemp(prefix="exeat-p-"))
    with_a_past(home / "state")
    spikes = "spikes: [{meter: price, per: hour, over: 3x, least: 2 USD, then: stop}]"
    limits = {"agent": f"{{spend: [{{meter: price, max: 500 USD, per: day}}], {spikes}}}"}
    try:
        with fleet(limits, home=home) as here:
            first = here.agent("agent")
            until_stopped(first, [])
            agents = [first, *(here.twin(first) for _ in range(12))]
            here.wait(lambda: {agent.get("/v1/x").code for agent in agents} == {"account_suspended"}, 3)
            os.kill(here.pid_of("control.fleet.control"), signal.SIGKILL)
            assert {code_of(agent) for agent in agents} <= {"account_suspended", "control_unavailable"}
            here.wait(here.whole)
            here.wait(lambda: {code_of(agent) for agent in agents} == {"account_suspended"})
            here.product.cli("resume", "account", "agent", "--reason", "INC-204").ok()
            assert {code_of(agent) for agent in agents} == {None}
            here.leave()
            here.verified()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def code_of(agent: Agent) -> str | None:
    """A connection of a worker that does not hear may be closed."""
    try:
        return agent.get("/v1/x").code
    except (OSError, http.client.HTTPException):
        agent.close()
        return "control_unavailable"
