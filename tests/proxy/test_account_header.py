"""A connection bound to one account at the service by a header: what leaves says that account, and no other."""

from pathlib import Path

import pytest

from tests.worlds.authority import Authority
from tests.worlds.gate import running_gate, write_policy
from tests.worlds.origin import Origin
from tests.worlds.towns import SECRET, Town

pytestmark = pytest.mark.anyio

POLICY = """
exeat: 1
tenant: acme
connections:
  pay: {{host: saas.test, service: stripe, account: {account}, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    rules:
      - {{id: all, allow: {{connection: pay, path: /**}}}}
"""
OTHERS = ("Stripe-Account", "STRIPE-ACCOUNT", "Stripe-Context", "STRIPE-CONTEXT", "stripe_context")


async def test_an_agent_cannot_say_another_account_by_any_header(tmp_path: Path) -> None:
    authority = Authority()
    async with Origin(authority.issue("saas.test")) as origin:
        text = POLICY.format(port=origin.port, account="acct_ours")
        policy = write_policy(tmp_path / "policy", text, {"ca.pem": authority.pem})
        async with running_gate(tmp_path, policy, secrets={"saas": SECRET}) as gate:
            here = Town(gate, origin)
            for other in OTHERS:
                async with here.agent() as agent:
                    response = await agent.request("GET", "/v1/charges", headers={other: "acct_theirs"})
                assert response.status == 200
                said = origin.requests[-1].headers
                assert [value for name, value in said if "account" in name.lower()] == ["acct_ours"]
                assert not any("context" in name.lower() or "acct_theirs" in value for name, value in said)
    assert len(origin.requests) == len(OTHERS)
