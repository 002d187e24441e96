"""The part of a policy's schema that is about workflows: what each of them is for."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from rules.policy.fields import ToolPattern
from rules.policy.invalid import ValueInvalid

DECLARED: Final = "declared"
"""Only an operator's `exeat outcome` counts."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class OutcomeDocument(_Document):
    """The calls that each achieve what the workflow is for."""

    tools: list[ToolPattern] = Field(
        min_length=1, max_length=64, description="Tools, or beginnings of their names with .*"
    )
    status: list[Annotated[int, Field(ge=200, le=599)]] | None = Field(
        default=None, min_length=1, max_length=16, description="HTTP status codes that count; every 2xx if left out."
    )


class _Declared(OutcomeDocument):
    """Written `declared`: no call counts."""

    tools: list[ToolPattern] = []


def _read(value: object) -> object:
    if value == DECLARED:
        return _Declared()
    if isinstance(value, dict):
        return {**value, "tools": [value["tools"]]} if isinstance(value.get("tools"), str) else value
    raise ValueInvalid("not an outcome", "write declared, or {tools: [stripe.refund.create]}")


def _write(outcome: OutcomeDocument) -> object:
    return outcome.model_dump(exclude_none=True) if outcome.tools else DECLARED


class WorkflowDocument(_Document):
    """One kind of work that agents do."""

    outcome: Annotated[
        OutcomeDocument,
        BeforeValidator(_read, json_schema_input_type=Literal["declared"] | OutcomeDocument),
        PlainSerializer(_write, return_type=Any),
    ] = Field(description="What counts as its outcome: calls of tools that succeed, or what operators declare.")


__all__ = ["OutcomeDocument", "WorkflowDocument"]
