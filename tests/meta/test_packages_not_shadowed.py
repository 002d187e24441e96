"""Our top-level packages are ours: PyPI has a `rules`, a `credentials` and a `proxy` (installed by proxy.py)."""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["control", "proxy", "rules", "credentials", "ledger"])
def test_the_package_is_the_one_in_this_tree(package: str) -> None:
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin == str(ROOT / package / "__init__.py")


def test_no_installed_distribution_brings_one_of_our_names() -> None:
    ours = {"control", "proxy", "rules", "credentials", "ledger"}
    providers = importlib.metadata.packages_distributions()
    assert {name: set(providers[name]) - {"exeat"} for name in ours if set(providers.get(name, ())) - {"exeat"}} == {}
