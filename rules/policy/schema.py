"""The policy's JSON Schema, for editors: `python -m rules.policy.schema > docs/reference/policy.schema.json`.

The schema helps while typing. It does not say all that loading checks; a policy is valid when `exeat check` says so.
"""

import json
import sys
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue

from rules.policy.models import TenantDocument

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Draft 2020-12, without the titles that pydantic makes up for every key."""

    schema_dialect = _DIALECT

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        made = super().generate(schema, mode)
        # `X | None` is how a model says that a key may be left out. Writing null is never meant.
        return {"$schema": _DIALECT, **_object(_without_null(made)), "title": "Exeat policy"}


def _object(node: Any) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise TypeError("a schema is an object")
    return node


def _without_null(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _without_null(value) for key, value in node.items() if not (key == "default" and value is None)}
    if isinstance(made.get("default"), dict):
        made["default"] = {key: value for key, value in made["default"].items() if value is not None}
    options = made.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        left = [option for option in options if option != {"type": "null"}]
        del made["anyOf"]
        if len(left) == 1:
            made = {**left[0], **made}
        else:
            made["anyOf"] = left
    return made


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of one policy file, generated from the models."""
    return TenantDocument.model_json_schema(schema_generator=_Generator)


def schema_text() -> str:
    """The schema as it stands in `docs/reference/policy.schema.json`."""
    return json.dumps(policy_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
