"""GraphQL requests over HTTP: every operation of the document, and every field at its root.

What a request does is what its root fields do, so all of them are listed: those of every operation in the document,
whichever `operationName` chooses, through every fragment, under every alias, and whatever `@skip` and `@include` say,
because which one runs is decided by the server.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from graphql import GraphQLError, parse
from graphql.language import (
    ArgumentNode,
    BooleanValueNode,
    ConstObjectFieldNode,
    DocumentNode,
    EnumValueNode,
    FieldNode,
    FloatValueNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectFieldNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    StringValueNode,
    ValueNode,
    VariableNode,
)

from rules.content.refused import ContentRefused
from rules.content.strict_json import MAX_DEPTH, MAX_VALUES, Json, read_decimal, read_json, read_whole

MAX_LENGTH: Final = 50_000
"""Characters of all documents of a batch together. The parser is Python: each costs it a microsecond."""
MAX_TOKENS: Final = 3000
"""Shared alike by the requests of a batch. Each costs some twenty microseconds."""
MAX_COMMENTS: Final = 500
MAX_OPERATIONS: Final = 20
"""In one document."""
MAX_FIELDS: Final = 100
"""At the roots of a request, every repetition under another alias counted."""
MAX_REQUESTS: Final = 20
"""In one batch."""
_ABSENT: Final = object()
_KEYS: Final = frozenset({"query", "operationName", "variables", "extensions"})


@dataclass(frozen=True, slots=True)
class RootField:
    """One thing that the request may do."""

    operation: str
    """`query`, `mutation` or `subscription`."""
    name: str
    """As the schema has it, not its alias."""
    arguments: Mapping[str, Json]
    """With variables filled in; one without a value and a default is left out."""


def read_graphql(value: Json) -> tuple[RootField, ...]:
    """The root fields of a body, one request or a batch. Raises `ContentRefused`."""
    requests = value if isinstance(value, list) else [value]
    if not 0 < len(requests) <= MAX_REQUESTS:
        raise ContentRefused(f"a GraphQL batch has one to {MAX_REQUESTS} requests")
    queries = [request.get("query") for request in requests if isinstance(request, dict)]
    if sum(len(query) for query in queries if isinstance(query, str)) > MAX_LENGTH:
        raise ContentRefused(f"the GraphQL documents are longer than {MAX_LENGTH} characters")
    found = [field for request in requests for field in _request(request, MAX_TOKENS // len(requests))]
    if len(found) > MAX_FIELDS:
        raise ContentRefused(f"the GraphQL request has more than {MAX_FIELDS} fields at its roots")
    _check_values(found)
    return tuple(found)


def read_graphql_query(members: Mapping[str, object]) -> tuple[RootField, ...]:
    """The same for a request in a query string, in which variables and extensions are JSON. Raises `ContentRefused`."""
    request: dict[str, Json] = {}
    for name, text in members.items():
        if not isinstance(text, str):
            raise ContentRefused("the GraphQL query string has a member that is no text")
        request[name] = read_json(text.encode()) if name in {"variables", "extensions"} else text
    return read_graphql(request)


def _check_values(fields: Iterable[RootField]) -> None:
    """A variable may stand in many places: what was sent once is then judged as often."""
    count = 0
    waiting: list[object] = [field.arguments for field in fields]
    while waiting:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(inner)
        if count > MAX_VALUES:
            raise ContentRefused(f"the GraphQL arguments have more than {MAX_VALUES} values")
        waiting.extend(inner)


def _request(value: Json, tokens: int) -> list[RootField]:
    if not isinstance(value, dict) or value.keys() - _KEYS:
        raise ContentRefused("not a GraphQL request: a JSON object with query, operationName and variables")
    if value.get("extensions") not in (None, {}):
        # A persisted query is a digest in place of the text: what it does cannot be read.
        raise ContentRefused("GraphQL extensions, persisted queries among them, are not read here")
    query, variables = value.get("query"), value.get("variables")
    if not isinstance(value.get("operationName"), str | None):
        raise ContentRefused("the GraphQL operationName is no text")
    if not isinstance(query, str):
        raise ContentRefused("the GraphQL request has no query")
    if variables is not None and not isinstance(variables, dict):
        raise ContentRefused("the GraphQL variables are no object")
    try:
        document = parse(query, no_location=True, max_lexical_tokens=tokens, max_comments=MAX_COMMENTS)
    except (GraphQLError, RecursionError):
        raise ContentRefused("the GraphQL document cannot be parsed, is too long or nested too deeply") from None
    return _fields(document, variables or {})


def _fields(document: DocumentNode, variables: Mapping[str, Json]) -> list[RootField]:
    operations: list[OperationDefinitionNode] = []
    fragments: dict[str, FragmentDefinitionNode] = {}
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            operations.append(definition)
        elif isinstance(definition, FragmentDefinitionNode) and definition.name.value not in fragments:
            fragments[definition.name.value] = definition
        else:
            raise ContentRefused(
                "the GraphQL document has a definition that is no operation or fragment, or is there twice"
            )
    names = [None if operation.name is None else operation.name.value for operation in operations]
    if not operations or len(set(names)) != len(names) or (None in names and len(names) > 1):
        raise ContentRefused("the GraphQL document has no operation, or several that cannot be told apart")
    if len(operations) > MAX_OPERATIONS:
        raise ContentRefused(f"the GraphQL document has more than {MAX_OPERATIONS} operations")
    return [
        RootField(operation.operation.value, node.name.value, _members(node.arguments or (), values))
        for operation in operations
        for values in (_variables(operation, variables),)
        for node in _roots(operation.selection_set, fragments)
    ]


def _roots(selections: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]) -> list[FieldNode]:
    """Fields at the root, those inside of fragments too. A fragment in a circle is entered once."""
    found: list[FieldNode] = []
    entered: set[str] = set()
    waiting = list(reversed(selections.selections))
    while waiting:
        selection = waiting.pop()
        if isinstance(selection, FieldNode):
            found.append(selection)
            if len(found) > MAX_FIELDS:
                raise ContentRefused(f"the GraphQL request has more than {MAX_FIELDS} fields at its roots")
        elif isinstance(selection, InlineFragmentNode):
            waiting.extend(reversed(selection.selection_set.selections))
        elif isinstance(selection, FragmentSpreadNode) and selection.name.value in fragments:
            if selection.name.value not in entered:
                entered.add(selection.name.value)
                waiting.extend(reversed(fragments[selection.name.value].selection_set.selections))
        else:
            raise ContentRefused("the GraphQL document uses a fragment that it does not define")
    return found


def _variables(operation: OperationDefinitionNode, given: Mapping[str, Json]) -> dict[str, object]:
    """What each declared variable stands for; `_ABSENT` if it has neither a value nor a default."""
    values: dict[str, object] = {}
    for definition in operation.variable_definitions or ():
        name = definition.variable.name.value
        if name in values:
            raise ContentRefused("a GraphQL variable is declared twice")
        if name in given:
            values[name] = given[name]
        elif definition.default_value is not None:
            values[name] = _value(definition.default_value, {})
        else:
            values[name] = _ABSENT
    return values


def _members(
    nodes: Iterable[ArgumentNode | ObjectFieldNode | ConstObjectFieldNode],
    variables: Mapping[str, object],
    depth: int = 0,
) -> dict[str, Json]:
    members: dict[str, Json] = {}
    names: set[str] = set()
    for node in nodes:
        name = node.name.value
        if name in names:
            raise ContentRefused("a GraphQL field has an argument twice")
        names.add(name)
        value = _value(node.value, variables, depth)
        if value is not _ABSENT:
            members[name] = cast("Json", value)
    return members


def _value(node: ValueNode, variables: Mapping[str, object], depth: int = 0) -> object:
    if depth > MAX_DEPTH:
        raise ContentRefused(f"the GraphQL arguments are nested deeper than {MAX_DEPTH}")
    match node:
        case VariableNode():
            if node.name.value not in variables:
                raise ContentRefused("the GraphQL document uses a variable that it does not declare")
            return variables[node.name.value]
        case IntValueNode():
            return read_whole(node.value)
        case FloatValueNode():
            return read_decimal(node.value)
        case NullValueNode():
            return None
        case ListValueNode():
            items = [_value(item, variables, depth + 1) for item in node.values]
            return [None if item is _ABSENT else item for item in items]
        case ObjectValueNode():
            return _members(node.fields, variables, depth + 1)
        case StringValueNode() if "\x00" in node.value:
            raise ContentRefused("the GraphQL document has text with U+0000")
        case StringValueNode() | BooleanValueNode() | EnumValueNode():
            return node.value
        case _:
            raise ContentRefused("the GraphQL document has a value of an unknown kind")
