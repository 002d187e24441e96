"""`exeat prices list` and `show`: what comes with Exeat, and what a policy's folder adds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from control.cli import run_command
from rules.prices.library import BUILTIN, builtin

OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
POLICY = f"exeat: 1\ntenant: acme\nconnections:\n  crm: {{host: crm.example}}\naccounts:\n  a: {{owners: {OWNERS}}}\n"
OURS = """\
prices: 1
book: ours
models:
  m: {input: 1 EUR, long: {above: 10, input: 2 EUR}}
  z: {input: 9 EUR, since: 2999-01-01}
"""
ADDED = "prices: 1\nbook: openai\ntiers: {quick: 300%}\nmodels: {ft-ours: {input: 9 USD}}\n"

type Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def exeat(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command(["prices", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    for name, text in (("acme", POLICY), ("ours", OURS), ("openai", ADDED)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def test_every_book_that_comes_with_it_is_listed(exeat: Command) -> None:
    code, out, _ = exeat("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["BOOK", *BUILTIN]
    code, out, _ = exeat("list", "--json")
    assert [book["from"] for book in json.loads(out)["books"]] == ["built in"] * len(BUILTIN)


def test_a_policys_books_are_listed_beside_them(exeat: Command, policy: Path) -> None:
    code, out, _ = exeat("list", "--policy", policy, "--json")
    assert code == 0
    assert {book["book"]: (book["from"], book["currency"]) for book in json.loads(out)["books"]} == {
        "anthropic": ("built in", "USD"),
        "openai": ("built in, policy", "USD"),
        "ours": ("policy", "EUR"),
    }


def test_a_book_is_shown_with_what_it_says_today(exeat: Command, policy: Path) -> None:
    code, out, _ = exeat("show", "ours", "--policy", policy, "--json")
    shown = json.loads(out)
    assert code == 0
    assert [price["model"] for price in shown["prices"]] == ["m"]
    assert shown["prices"][0]["micros"]["output"] == 1_000_000
    assert shown["prices"][0]["long"] == {"above": 10, "micros": dict.fromkeys(shown["prices"][0]["micros"], 2_000_000)}
    code, out, _ = exeat("show", "openai", "--policy", policy)
    assert code == 0
    assert "ft-ours" in out
    assert "tier quick: 300%" in out
    base = builtin("openai")
    assert base is not None
    assert base.digest not in out
    assert base.digest in exeat("show", "openai")[1]


def test_a_name_that_is_none_is_told_the_nearest(exeat: Command) -> None:
    code, _, err = exeat("show", "opena")
    assert code == 1
    assert "did you mean openai?" in err


def test_a_policy_that_is_not_valid_is_not_read(exeat: Command, policy: Path) -> None:
    (policy / "second.yaml").write_text(OURS)
    code, _, err = exeat("list", "--policy", policy)
    assert code == 1
    assert "exeat check" in err
