"""An auditor's machine: Python, `cryptography`, nothing else."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

BLOCKER = """
import sys

ALLOWED = {"ledger", "cryptography", "_cffi_backend", "cffi"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ALLOWED:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_blocker_blocks():
    assert "orjson is not installed here" in _python("import orjson").stderr


def test_a_ledger_written_with_orjson_verifies_without_it(world, records, tmp_path):
    """Imports and runs with the standard library and cryptography only, and reaches the same verdict."""
    with world() as ledger:
        ledger.submit(*records.activate()).result(10)
        intent = ledger.submit(*records.intent("c_1", dial="\u00e4\u2028\U0001f600\x7f\x01")).result(10)
        ledger.submit(*records.outcome("c_1", intent.seq)).result(10)
        (tmp_path / "trust").write_text(ledger.trust_text())
    code = """
from pathlib import Path
from ledger import Trust, canonical, render, verify
assert not canonical.HAS_ORJSON
report = verify(Path(sys.argv[1]), Trust.parse(Path(sys.argv[2]).read_text()))
print(render(report))
sys.exit(report.exit_code)
"""
    done = _python(code, str(tmp_path / "ledger"), str(tmp_path / "trust"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("INTACT")
