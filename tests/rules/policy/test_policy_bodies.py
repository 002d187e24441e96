"""How a policy says what is done with bodies."""

from pathlib import Path

import pytest

from rules.bodies import HELD, INSPECTED, Handling
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.diff import summarise
from rules.policy.load import load_policy
from rules.policy.source import PolicyInvalid
from rules.policy.templates import normal_segments

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
    segments = normal_segments(path)
    assert segments is not None
    return of.tenants["acme"].accounts["agent"].allow.matching("saas", "PUT", segments)[0].body


def test_the_deciding_rule_decides_and_left_out_it_is_held(tmp_path: Path) -> None:
    made = policy(tmp_path, ", body: inspect", ", body: {stream: 2 GiB}")
    assert handling(made, "/x") == INSPECTED
    assert handling(made, "/files/x") == Handling(stream_bytes=2 << 30)
    assert handling(policy(tmp_path), "/files/x") == HELD
    assert PolicySet.from_bundle(made.bundle) == made


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
