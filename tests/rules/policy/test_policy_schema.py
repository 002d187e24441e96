"""The published JSON Schema is the models', and says what they say."""

from pathlib import Path

from rules.policy.models import TenantDocument
from rules.policy.schema import policy_schema, schema_text

FILE = Path(__file__).parents[3] / "docs" / "reference" / "policy.schema.json"


def test_the_published_schema_is_current() -> None:
    assert FILE.read_text() == schema_text(), "run: python -m rules.policy.schema > docs/reference/policy.schema.json"


def test_no_key_may_be_unknown_and_none_is_null() -> None:
    schema = policy_schema()
    for name, part in {"": schema, **schema["$defs"]}.items():
        assert part["additionalProperties"] is False, name
    assert "null" not in schema_text()


def test_the_keys_of_the_schema_are_the_keys_of_the_models() -> None:
    schema = policy_schema()
    assert set(schema["properties"]) == set(TenantDocument.model_fields)
    assert schema["required"] == ["exeat", "tenant"]
    assert schema["$defs"]["AccountDocument"]["required"] == ["owners"]
    assert schema["$defs"]["RuleDocument"]["oneOf"] == [{"required": ["allow"]}, {"required": ["deny"]}]
