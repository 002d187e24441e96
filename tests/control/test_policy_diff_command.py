"""`exeat policy diff`, and what `policy apply` says and does not do: real commands, with a process and without one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from control.cli.policy import describe
from control.operations import PolicyApplied
from tests.worlds.product import Product, running

OWNERS = "{accountable: ana@x.example, system: ben@x.example, risk: eve@x.example}"
POLICY = f"""\
exeat: 1
tenant: acme
connections:
  stripe: {{host: api.stripe.com, secret: stripe/key}}
accounts:
  refunds:
    owners: {OWNERS}
    limits: {{concurrency: 2}}
    rules:
      - {{id: refund, allow: {{connection: stripe, methods: [POST], path: /v1/refunds}}, when: int(body.amount) <= 100}}
      - {{id: never-delete, deny: {{connection: "*", methods: [DELETE]}}}}
"""
WIDER = POLICY.replace("<= 100", "<= 200").replace("concurrency: 2", "concurrency: 3")
TESTED = POLICY + "tests:\n  - {account: refunds, call: DELETE stripe /x, expect: deny rule_denied}\n"


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with running(policy=POLICY) as product:
        yield product


def write(folder: Path, text: str, name: str = "new.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_what_opens_and_closes_is_told_and_is_drift(product: Product, tmp_path: Path) -> None:
    done = product.cli("policy", "diff", write(tmp_path, WIDER))
    assert (done.code, done.out.splitlines()) == (
        1,
        [
            "opens: acme/refunds: allow refund: POST stripe /v1/refunds, when int(body.amount) <= 200",
            "opens: acme/refunds: concurrency 3, was 2",
            "closes: acme/refunds: no longer allow refund: POST stripe /v1/refunds, when int(body.amount) <= 100",
        ],
    )
    document = product.cli("policy", "diff", write(tmp_path, WIDER), "--json").json
    assert document["from"] == product.status()["policy"]
    assert (document["differs"], len(document["opens"]), len(document["closes"])) == (True, 2, 1)


@pytest.mark.parametrize(("text", "said"), [(POLICY, "no difference\n"), (TESTED, "no difference in what is judged")])
def test_what_judges_every_call_alike_is_no_drift(product: Product, tmp_path: Path, text: str, said: str) -> None:
    done = product.cli("policy", "diff", write(tmp_path, text))
    assert done.code == 0
    assert done.out.startswith(said)


def test_what_cannot_be_read_is_not_told_to_be_the_same(product: Product, tmp_path: Path) -> None:
    done = product.cli("policy", "diff", write(tmp_path, "exeat: 2\n"))
    assert done.code == 3
    assert "new.yaml:1:8" in done.err
    good = write(tmp_path, POLICY, "good.yaml")
    assert product.cli("policy", "diff", good, "--against", write(tmp_path, "exeat: 2\n")).code == 3
    assert product.cli("policy", "diff", good, "--state", str(tmp_path / "nowhere")).code == 3


def test_two_policies_are_compared_without_a_process_or_a_state(product: Product, tmp_path: Path) -> None:
    old, new = write(tmp_path, WIDER, "old.yaml"), write(tmp_path, POLICY)
    done = product.cli("policy", "diff", new, "--against", old, "--state", str(tmp_path / "nowhere"))
    assert done.code == 1
    assert "closes: acme/refunds: concurrency 2, was 3" in done.out
    assert not (tmp_path / "nowhere").exists()


def test_a_dry_run_says_it_all_and_changes_nothing(product: Product, tmp_path: Path) -> None:
    before, records = product.status()["policy"], len(product.records())
    done = product.cli("policy", "apply", write(tmp_path, WIDER), "--dry-run").ok()
    lines = done.out.splitlines()
    assert lines[0].startswith("opens: acme/refunds: allow refund")
    assert lines[-2].startswith("would be active: sha256:")
    assert lines[-1] == "secret missing: exeat secret set stripe/key --tenant acme < FILE"
    assert (product.status()["policy"], len(product.records())) == (before, records)
    failing = TESTED.replace("deny rule_denied", "allow")
    assert product.cli("policy", "apply", write(tmp_path, failing), "--dry-run").code == 1
    assert len(product.records()) == records


def test_an_activation_says_what_it_opened_and_closed(tmp_path: Path) -> None:
    """Without a process: the first policy opens all of it, the next what it adds, the same again nothing."""
    product = Product(tmp_path)
    first = product.cli("policy", "apply", write(tmp_path, POLICY)).ok().out.splitlines()
    assert [line.split(":")[0] for line in first] == ["opens"] * 5 + ["active", "secret missing"]
    second = product.cli("policy", "apply", write(tmp_path, WIDER)).ok().out.splitlines()
    assert [line.split(":")[0] for line in second] == ["opens", "opens", "closes", "active", "secret missing"]
    again = product.cli("policy", "apply", write(tmp_path, WIDER)).ok().out.splitlines()
    assert again[0].startswith("active: ")
    assert again[0].endswith("(unchanged)")


def test_of_a_very_long_change_the_beginning_is_shown() -> None:
    applied = PolicyApplied("sha256:0", None, ("t",), 1, 1, (), (), 7, opens=tuple(map(str, range(60))))
    lines = describe(applied).splitlines()
    assert (len(lines), lines[40]) == (42, "... and 20 more; --json has all")
