"""Policies written to hurt the loader: bombs, endless numbers, nesting, files elsewhere. Each is refused readably."""

import os
from pathlib import Path

import pytest

from rules.policy.load import load_policy
from rules.policy.source import PolicyInvalid

SOUND = """exeat: 1
tenant: acme
connections:
  saas: {host: saas.test, secret: saas, present: bearer%s}
accounts:
  agent:
    owners: {accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}
    rules:
      - {id: things, allow: {connection: saas, methods: [GET], path: "%s"}}
%s"""


def policy(connection: str = "", path: str = "/things/**", end: str = "") -> str:
    return SOUND % (connection, path, end)


BAD = {
    "billion laughs": "a: &a [x,x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)},*{chr(97 + i)}]\n" for i in range(20)),
    "merge keys": "a: &a {x: 1}\nb: {<<: *a}\n",
    "brackets": "a: " + "[" * 100_000 + "]" * 100_000,
    "braces": "a: " + "{a: " * 20_000,
    "dashes": "- " * 20_000 + "a",
    "question marks": "? " * 50_000,
    "a number of a million digits": policy(", port: " + "9" * 1_000_000),
    "a lifetime of digits": policy(end="credentials: {ttl: " + "9" * 200_000 + "m}"),
    "a price of digits": policy(", price: " + "9" * 100_000 + " USD"),
    "a price with an exponent": policy(", price: 1e999999999 USD"),
    "not a number": policy(", port: .nan"),
    "a sexagesimal port": policy(", port: 7:23"),
    "a Python object": policy(end="x: !!python/object/apply:os.system [id]"),
    "a key twice": policy(end="tenant: globex"),
    "a second document": policy() + "---\n" + policy(),
    "a NUL": policy() + "\0",
    "ten megabytes": "# " + "a" * 10_000_000 + "\n" + policy(),
    "a path of templates": policy(path="/" + "{a}/" * 5_000 + "**"),
    "a path to backtrack in": policy(path="/" + "a" * 100_000 + "!"),
    "a host to backtrack in": policy().replace("saas.test", "a-" * 50_000 + "!"),
    "an address to backtrack in": policy().replace("a@acme.example", "a@" + "a." * 100_000),
    "a CA above the folder": policy(", ca: ../secret.pem"),
    "a CA by absolute path": policy(", ca: /etc/passwd"),
    "a CA behind a link": policy(", ca: link.pem"),
    "a CA behind a linked folder": policy(", ca: folder/hostname"),
    "a CA that is a pipe": policy(", ca: pipe.pem"),
    "metadata by dial": policy(', dial: "169.254.169.254:80"'),
    "metadata by host": policy().replace("saas.test", "169.254.169.254"),
    "loopback in IPv6 dress": policy(', dial: "[::ffff:127.0.0.1]:80"'),
    "the unspecified address": policy(', dial: "0.0.0.0:80"'),
    "a number as host": policy().replace("saas.test", '"2130706433"'),
    "circled digits as host": policy().replace("saas.test", '"①②⑦.0.0.1"'),
}


@pytest.mark.parametrize("what", BAD)
def test_a_policy_that_attacks_the_loader(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "policy"
    folder.mkdir()
    (tmp_path / "secret.pem").write_text("-----BEGIN CERTIFICATE-----")
    (folder / "link.pem").symlink_to("/etc/hostname")
    (folder / "folder").symlink_to("/etc")
    os.mkfifo(folder / "pipe.pem")
    (folder / "acme.yaml").write_text(BAD[what])
    with pytest.raises(PolicyInvalid) as caught:
        load_policy(folder)
    assert caught.value.errors
    assert all(len(str(error)) < 2_000 for error in caught.value.errors), "an error quotes no bomb"


def test_the_frame_itself_is_sound(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text(policy())
    load_policy(tmp_path)
