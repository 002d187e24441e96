"""How a policy says what is done with bodies."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from credentials.principal import Principal
from rules.bodies import HELD, INSPECTED, Handling
from rules.call import Call, Facts
from rules.decide import decide
from rules.decision import Allowed
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.diff import summarise
from rules.policy.load import load_policy
from rules.policy.source import PolicyInvalid

POLICY = """
exeat: 1
tenant: acme
connections: {{saas: {{host: saas.test}}}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    rules:
      - {{id: all, allow: {{connection: saas, path: /**{all}}}}}
      - {{id: files, allow: {{connection: saas, path: /files/**{files}}}}}
"""


def policy(folder: Path, every: str = "", files: str = "") -> PolicySet:
    (folder / "policy.yaml").write_text(POLICY.format(all=every, files=files))
    return compile_policy(load_policy(folder))


def handling(of: PolicySet, path: str) -> Handling:
    tenant = of.tenants["acme"]
    principal = Principal("acme", "agent", "w", "r", "c", 0, 0, 1)
    call = Call("c_1", principal, "https", "saas.test", 443, "PUT", path, "")
    decision = decide(call, Facts(tenant, tenant.connection_for("https", "saas.test", 443), datetime.now(UTC)))
    assert isinstance(decision, Allowed)
    return decision.body


def test_the_deciding_rule_decides_and_left_out_it_is_held(tmp_path: Path) -> None:
    made = policy(tmp_path, ", body: {stream: 2 MiB}", ", body: {stream: 2 GiB}")
    assert handling(made, "/x") == Handling(stream_bytes=2 << 20)
    assert handling(made, "/files/x") == Handling(stream_bytes=2 << 30)
    assert handling(policy(tmp_path, files=", body: inspect"), "/files/x") == INSPECTED
    assert handling(policy(tmp_path), "/files/x") == HELD
    assert PolicySet.from_bundle(made.bundle) == made


@pytest.mark.parametrize("files", ["", ", body: {stream: 2 GiB}"])
def test_a_more_specific_rule_is_no_way_around_one_that_inspects(tmp_path: Path, files: str) -> None:
    made = policy(tmp_path, ", body: inspect", files)
    assert handling(made, "/files/x") == INSPECTED
    assert handling(PolicySet.from_bundle(made.bundle), "/files/x") == INSPECTED


def test_nor_are_so_many_that_it_is_no_longer_named(tmp_path: Path) -> None:
    rules = "".join(
        f"      - {{id: r{n}, allow: {{connection: saas, path: /files{'/x' * n}/**, body: {{stream: 2 GiB}}}}}}\n"
        for n in range(1, 10)
    )
    text = POLICY.format(all=", body: inspect", files="") + rules
    (tmp_path / "policy.yaml").write_text(text)
    assert handling(compile_policy(load_policy(tmp_path)), "/files" + "/x" * 9) == INSPECTED


def test_a_stream_that_can_never_be_one_is_warned_of(tmp_path: Path) -> None:
    policy(tmp_path, ", body: inspect", ", body: {stream: 2 GiB}")
    assert [w.message for w in load_policy(tmp_path).warnings if w.name == "inspected-stream"] == [
        "files can never stream a body: all reads all of them"
    ]


def test_sizes_that_differ_by_little_differ_in_a_difference(tmp_path: Path) -> None:
    old = policy(tmp_path, files=", body: {stream: 1025 KiB}")
    summary = summarise(old, policy(tmp_path, files=", body: {stream: 1500 KiB}"))
    assert any("streamed up to 1500 KiB" in line for line in summary.opens)


def test_a_difference_says_what_becomes_of_bodies(tmp_path: Path) -> None:
    old = policy(tmp_path)
    new = policy(tmp_path, files=", body: {stream: 500 MiB}")
    summary = summarise(old, new)
    assert any("body streamed up to 500 MiB" in line for line in summary.opens)


@pytest.mark.parametrize(
    ("body", "fix"),
    [
        ("stream", "write inspect or {stream: 500 MiB}"),
        ("{stream: 500}", "such as 500 MiB"),
        ("{stream: 500mb}", "write 500 MiB"),
        ("{stream: 1 MiB}", "write more than 1 MiB"),
        ("{stream: 2 MiB, also: 1}", "write inspect or"),
        ("true", "write inspect or"),
    ],
)
def test_what_is_none_of_them_is_refused_kindly(tmp_path: Path, body: str, fix: str) -> None:
    with pytest.raises(PolicyInvalid) as refused:
        policy(tmp_path, files=f", body: {body}")
    (error,) = refused.value.errors
    assert fix in error.fix
    assert error.line == 10
