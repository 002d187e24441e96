"""Who could read the keys: seen from inside a run, and refused where that was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from control.separation import readable_keys, shares_user
from tests.worlds.product import Product, running


@pytest.fixture(scope="module")
def product():
    with running() as one:
        yield one


def test_the_same_user_is_told_so_and_refused_where_separation_is_required(product: Product, tmp_path: Path) -> None:
    assert readable_keys(product.state)
    assert shares_user(product.state, os.geteuid())
    assert shares_user(product.state, 0)
    assert not shares_user(product.state, os.geteuid() + 4711)
    done = product.run("true", options=("--require-separation",))
    assert done.code == 3
    assert "--user" in done.err


@pytest.mark.wants("root: to become another user")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_can_open_no_key(product: Product) -> None:
    """Also where it can reach the folder above: the folder itself and each file are closed to it."""
    script = (
        "import os, sys; from pathlib import Path; from control.separation import readable_keys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "print(len(readable_keys(Path(sys.argv[1]))))"
    )
    product.folder.chmod(0o755)
    root = Path(__file__).resolve().parents[2]
    seen = subprocess.run(
        [sys.executable, "-c", script, str(product.state)], capture_output=True, text=True, check=True, cwd=root
    )
    assert seen.stdout == "0\n"
