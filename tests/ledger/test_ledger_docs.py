"""The specifications' examples are what the code makes and reads."""

import json
import re
from pathlib import Path

from ledger import KINDS, Trust
from ledger.schema import CONTENT, explain_record

FORMATS = Path(__file__).parents[2] / "docs" / "formats"


def _blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (FORMATS / name).read_text(), re.DOTALL)


def test_the_example_records_conform():
    examples = [json.loads(block) for block in _blocks("ledger-record.md", "json")]
    assert [record["type"] for record in examples] == ["call.intent", "call.outcome"]
    assert [explain_record(record) for record in examples] == [None, None]


def test_the_table_of_types_is_complete():
    text = (FORMATS / "ledger-record.md").read_text()
    for name, schema in CONTENT.items():
        row = next(line for line in text.split("\n") if line.startswith(f"| `{name}` |"))
        named = {member.strip(" ?|") for member in row.split("|")[2].split(",")}
        assert named == set(schema.members), name


def test_the_example_trust_file_parses_and_bears_its_fingerprint():
    example = _blocks("ledger-trust.md", "")[0]
    assert Trust.parse(example).text == example


def test_every_finding_is_documented():
    text = (FORMATS / "ledger-trust.md").read_text()
    missing = [name for name, kind in KINDS.items() if f"| `{name}` | {kind.weight} |" not in text]
    assert missing == []
