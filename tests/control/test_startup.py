"""What is refused before anything listens."""

import subprocess
import sys
from pathlib import Path

import pytest

from control.startup import (
    Address,
    StartRefused,
    agents_at_once,
    foreign_packages,
    parse_address,
    refuse_key_logs,
    unsafe_listeners,
)


def test_our_own_packages_are_our_own() -> None:
    assert foreign_packages() == ()


@pytest.mark.parametrize("name", ["rules", "credentials", "proxy"])
def test_a_foreign_package_with_one_of_our_names_is_found(tmp_path: Path, name: str) -> None:
    """As `pip install rules` into our environment would do it, if its place came first."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('ran foreign code')\n")
    root = Path(__file__).resolve().parents[2]
    script = (
        f"import sys; sys.path[:0] = [{str(root)!r}]; import control.startup as s\n"
        f"sys.path[:0] = [{str(tmp_path)!r}]\n"
        "try: s.refuse_foreign_packages()\n"
        "except s.StartRefused as refused: print(refused, '|', refused.cure)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.startswith(f"the package {name} comes from {tmp_path}")


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080), True),
        ("127.9.9.9:0", Address("127.9.9.9", 0), True),
        ("[::1]:80", Address("::1", 80), True),
        ("0.0.0.0:8080", Address("0.0.0.0", 8080), False),
        ("[::]:8080", Address("::", 8080), False),
        ("192.168.1.5:8080", Address("192.168.1.5", 8080), False),
    ],
)
def test_addresses_are_read_and_classed(text: str, address: Address, loopback: bool) -> None:
    assert parse_address(text) == address
    assert address.loopback is loopback
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["8080", "localhost:8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":8080", "127.0.0.1:٣"]
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"ADDRESS:PORT|IP address"):
        parse_address(text)


def test_a_listener_others_can_reach_is_refused_unless_it_is_called_unsafe() -> None:
    exposed = (Address("127.0.0.1", 1), Address("0.0.0.0", 2))
    with pytest.raises(StartRefused):
        unsafe_listeners(exposed, allowed=False)
    assert unsafe_listeners(exposed, allowed=True) == ("unsafe_plaintext_listener",)
    assert unsafe_listeners(exposed[:1], allowed=True) == ()


@pytest.mark.parametrize("name", ["SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE"])
def test_nothing_starts_while_tls_keys_would_be_written_down(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/tmp/keys")
    with pytest.raises(StartRefused, match=name):
        refuse_key_logs()


@pytest.mark.parametrize(("files", "agents"), [(256, 85), (1024, 341), (2400, 800), (4096, 2496), (1_048_576, 10_000)])
def test_agents_never_take_the_files_that_the_ledger_needs(files: int, agents: int) -> None:
    assert agents_at_once(files) == agents


def _limited(soft: int, hard: int) -> str:
    """What a process of these limits says of itself when it starts."""
    script = (
        "import resource, sys; from control.startup import StartRefused, raise_file_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "try: print(raise_file_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "except StartRefused as refused: print(refused, '|', refused.cure)\n"
    )
    root = Path(__file__).resolve().parents[2]
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root).stdout


def test_a_start_takes_all_the_files_it_may_have() -> None:
    assert _limited(100, 400) == "400 400\n"


def test_a_start_with_too_few_files_is_refused_with_the_fix() -> None:
    assert "may open 200 files" in (said := _limited(100, 200))
    assert "ulimit -n" in said
