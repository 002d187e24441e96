"""Imports point one way, and an auditor's verifier has no proxy in it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WITHOUT = """
import importlib, pkgutil, sys
refused = set(sys.argv[1].split(","))
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import ledger
for module in pkgutil.walk_packages(ledger.__path__, "ledger."):
    importlib.import_module(module.name)
"""


def test_the_linter_finds_every_import_pointing_the_right_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("also", ["", "orjson"], ids=["as installed", "without orjson"])
def test_the_ledger_imports_where_nothing_of_the_proxy_is_installed(also: str) -> None:
    """Every module of it, with only cryptography beside the standard library."""
    refused = "control,proxy,rules,credentials,mitmproxy,starlette,uvicorn,redis,pydantic,click,httpx2,httptools,jwt"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, f"{refused},OpenSSL,ruamel,{also or 'mitmproxy'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
