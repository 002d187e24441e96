"""No class of attacks without something that shows it failing, and no vector that is not said to a real gate."""

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.attacks.test_attack_vectors import EXECUTED, FOLDER

ROOT = Path(__file__).parents[2]
CLASSES: dict[str, dict[str, list[str]]] = YAML(typ="safe").load(Path(__file__).with_name("classes.yaml"))
EXAMPLES = [(kind, example, shown) for kind, examples in CLASSES.items() for example, shown in examples.items()]
VECTORS = {
    path.stem: [case["name"] for case in json.loads(path.read_text(encoding="ascii"))["cases"]]
    for path in FOLDER.glob("*.json")
}


@pytest.mark.parametrize(("kind", "example", "shown"), EXAMPLES, ids=[f"{kind}: {what}" for kind, what, _ in EXAMPLES])
def test_each_example_is_shown(kind: str, example: str, shown: list[str]) -> None:
    assert shown, "nothing shows that this fails"
    for reference in shown:
        if reference.startswith("tests/"):
            path, _, test = reference.partition("::")
            source = (ROOT / path).read_text(encoding="utf-8")
            assert not test or re.search(rf"^(?:async )?def {test}\(", source, re.M), reference
            continue
        file, _, prefix = reference.partition(": ")
        assert any(name.startswith(prefix) for name in VECTORS[file]), reference


def test_every_class_has_examples() -> None:
    assert {kind for kind, examples in CLASSES.items() if not examples} == set()
    assert len(EXAMPLES) > 60


def test_every_file_of_vectors_is_said_to_a_real_gate() -> None:
    assert VECTORS.keys() == EXECUTED
