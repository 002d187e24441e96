"""The tree keeps its shape: small files, no drawer names, no blanket excepts beyond those listed, no stray print."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("control", "proxy", "rules", "credentials", "ledger")
MAX_LINES = 400
"""A longer file asks which two nouns are in it."""

LONGER: dict[str, str] = {
    "ledger/log.py": "one noun: the writer thread, its queue and its end",
    "ledger/verify.py": "one noun: the passes over a ledger, in the order a verifier must take",
}
"""Path: why it is one noun all the same."""

DRAWERS = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}

BLANKET: dict[str, tuple[int, str]] = {
    "rules/decide.py": (1, "a guard's crash becomes a denial"),
    "proxy/pipeline.py": (1, "the engine's adapter: whatever nobody thought of becomes a refusal, recorded"),
    "proxy/session.py": (1, "the engine's adapter: a crash closes its own wire and nobody else's"),
    "proxy/accepting.py": (1, "one newcomer that cannot be served is logged and closed; the door stays open to others"),
    "proxy/gate.py": (1, "handed to the thread that gave the order, which raises it"),
    "control/following/follower.py": (2, "a fold's defect is told of and tried again; no call waits for it"),
    "control/operators.py": (1, "an operator gets an answer instead of a cut connection"),
    "control/cli/__init__.py": (1, "Python would exit with 1, and 1 is an answer: no"),
    "control/demo/agent.py": (2, "a client program of the demo, which shows whatever its SDK makes of a cut"),
    "ledger/log.py": (1, "the writer stops; everything waiting is refused"),
    "ledger/checkpoints.py": (1, "a log whose heads cannot be published must not go on"),
}
"""Path: how many handlers swallow everything there, and why. One that ends by raising is free: the error goes on."""

MAY_PRINT = ("control/cli",)


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _is_blanket(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    everything = any(one is None or (isinstance(one, ast.Name) and one.id in _EVERYTHING) for one in caught)
    return everything and not isinstance(handler.body[-1], ast.Raise)


_EVERYTHING = {"Exception", "BaseException"}


def _blankets(path: Path) -> list[int]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and _is_blanket(node)]


def _prints(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno


def test_no_file_grows_past_two_nouns() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _sources(*PACKAGES)}
    longer = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert not {name: lines for name, lines in longer.items() if name not in LONGER}


def test_no_module_is_a_drawer() -> None:
    sources = _sources(*PACKAGES, "benchmarks", "tests")
    assert not [_name(path) for path in sources if DRAWERS & {*path.relative_to(ROOT).parts, path.stem}]


def test_every_handler_of_everything_is_listed_with_its_reason() -> None:
    """An exception that nobody named is where a proxy fails open."""
    found = {_name(path): lines for path in _sources(*PACKAGES) if (lines := _blankets(path))}
    unlisted = {name: lines for name, lines in found.items() if len(lines) > BLANKET.get(name, (0, ""))[0]}
    assert not unlisted


def test_exceptions_from_the_rules_are_of_files_that_exist() -> None:
    assert [name for name in [*LONGER, *BLANKET] if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("handler", "blanket"),
    [
        ("except Exception: pass", True),
        ("except: pass", True),
        ("except (ValueError, BaseException): x = 1", True),
        ("except BaseException:\n  x = 1\n  raise", False),
        ("except BaseException as error:\n  raise Other from error", False),
        ("except Exception:\n  if rare:\n    raise", True),
        ("except ValueError: pass", False),
    ],
)
def test_what_counts_as_a_handler_of_everything(handler: str, blanket: bool, tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(f"try:\n  work()\n{handler}\n")
    assert bool(_blankets(source)) is blanket


def test_only_the_command_line_prints() -> None:
    """Elsewhere a line on standard output belongs to the agent's program or to nobody."""
    found = {_name(path): list(_prints(path)) for path in _sources(*PACKAGES) if not _name(path).startswith(MAY_PRINT)}
    assert not {name: lines for name, lines in found.items() if lines}


def test_tests_mirror_the_tree() -> None:
    """tests/PACKAGE/... mirrors PACKAGE/...; what has no twin is listed here."""
    without_twin = {"meta", "worlds", "vectors", "attacks", "clients", "docs", "campaigns", "fuzz", "oracle"}
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        folder.as_posix()
        for folder in folders
        if folder.parts and folder.parts[0] not in without_twin and not (ROOT / folder).is_dir()
    ]
    assert not [name for name in missing if not (ROOT / f"{name}.py").exists()]


def test_no_test_is_named_after_coverage() -> None:
    found = [_name(path) for path in _sources("tests") if "coverage" in path.stem]
    assert not found
