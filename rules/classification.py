"""(3) classify: which tools a request asks for, with which arguments. Total: any bytes give actions or a refusal."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from rules.action import UNKNOWN_TOOL, Action, unknown
from rules.call import Call, Facts
from rules.catalogue.document import TOOL
from rules.catalogue.effect import READ, WRITE, Effect, worst
from rules.catalogue.known import KnownService
from rules.catalogue.loose import loosely
from rules.conditions.unknown import Unknown
from rules.content.content import Content, Value, as_doubles
from rules.content.form import read_form
from rules.content.graphql import RootField, read_graphql, read_graphql_query
from rules.content.json_rpc import Message, Request, read_json_rpc
from rules.content.refused import ContentRefused
from rules.policy.templates import Template, normal_segments, parse_template

if TYPE_CHECKING:
    from rules.content.strict_json import Json

MAX_NAME: Final = 128
"""Characters of a tool's whole name; a longer one is an unknown tool's."""
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_TOOL: Final = re.compile(TOOL, re.ASCII)
_NOWHERE: Final = parse_template("/**")
_METHODS: Final[Mapping[str, tuple[Effect, bool]]] = MappingProxyType(
    {
        "initialize": ("read", True),
        "server/discover": ("read", True),
        "ping": ("read", True),
        "tools/list": ("read", True),
        "notifications/initialized": ("read", True),
        "notifications/cancelled": ("read", True),
        "notifications/progress": ("read", True),
        "notifications/roots/list_changed": ("read", True),
        "prompts/list": ("read", False),
        "prompts/get": ("read", False),
        "resources/list": ("read", False),
        "resources/templates/list": ("read", False),
        "resources/read": ("read", False),
        "resources/subscribe": ("read", False),
        "resources/unsubscribe": ("read", False),
        "completion/complete": ("read", False),
        "tasks/get": ("read", False),
        "tasks/list": ("read", False),
        "tasks/result": ("read", False),
    }
)
"""Of MCP, each with its effect and whether it only keeps a session. Every other method is a write."""


def classified(call: Call, facts: Facts) -> Facts:
    """The facts with what the call asks for, as far as they tell it: its body may not be read yet.

    Raises `ContentRefused` for a body that cannot be understood in exactly one way.
    """
    if facts.connection is None:
        return facts
    return facts.asking_for(tuple(_actions(call, facts.connection.known, facts.content)))


def route_of(call: Call, facts: Facts) -> str | None:
    """The path as the catalogue has it, with names for what differs; None where it has none."""
    service = None if facts.connection is None else facts.connection.known
    segments = normal_segments(call.path)
    if service is None or segments is None:
        return None
    found = service.candidates(call.method, segments)
    return found[0][1].text if found else None


def _actions(call: Call, service: KnownService | None, content: Content | None) -> Iterator[Action]:
    segments = normal_segments(call.path)
    if segments is None or service is None:
        yield unknown(service, None if service is None else service.name, _args(call, _NOWHERE, (), content))
    elif service.speaks_mcp(segments):
        yield from _of_mcp(call, service, content)
    elif service.takes_graphql(segments):
        yield from _of_graphql(call, service, content)
    else:
        yield from _of_rest(call, service, segments, content)
        yield from _taken_for(call, service, segments, content)


def _taken_for(
    call: Call, service: KnownService, segments: tuple[str, ...], content: Content | None
) -> Iterator[Action]:
    """What a service may take a request for, beside what it is: servers answer `HEAD` as they do `GET`, and many are
    less strict about paths than rules are. A rule that denies the one denies the other."""
    exact = service.candidates(call.method, segments)
    if exact and not exact[0][1].parameters and not exact[0][1].rest:
        return
    asked = replace(call, method="GET") if call.method == "HEAD" else call
    if not exact:
        like = loosely(segments)
        if any(like == loosely(parse_template(path).segments) for path in service.graphql):
            yield from _of_graphql(asked, service, content)
            return
        if service.protocol == "mcp" and like == loosely(parse_template(service.endpoint).segments):
            yield from _of_mcp(asked, service, content)
            return
    shorter = segments[:-1] if len(segments) > 1 and segments[-1] == "" else segments
    found = exact or service.candidates(asked.method, shorter)
    if found and not exact:
        yield from _of_rest(asked, service, shorter, content)
    for tool in service.resembling(asked.method, segments, found):
        # With which arguments, only a server knows that reads it so.
        yield Action(tool.name, tool.effect, None, tool, service)


def _of_rest(call: Call, service: KnownService, segments: tuple[str, ...], content: Content | None) -> Iterator[Action]:
    candidates = service.candidates(call.method, segments)
    template = candidates[0][1] if candidates else _NOWHERE
    args = _args(call, template, segments, content, service.query)
    place = _place(template, segments)
    for tool, _ in candidates:
        if tool.where is None:
            yield Action(tool.name, tool.effect, args, tool, service, place)
            return
        if content is None:
            yield Action(None, None, None, None, service, place)
            return
        try:
            told = None if args is None else tool.where.value(args=args)
        except Unknown:
            told = None
        if told is True:
            yield Action(tool.name, tool.effect, args, tool, service, place)
            return
        if told is not False:
            may_be = candidates
            break
    else:
        may_be = ()
    # It may be any of these, or none: what denies one of them denies it, and what allows it allows them all.
    by_method: Effect = "delete" if call.method == "DELETE" else "write"
    effects = (*(tool.effect for tool, _ in candidates), by_method)
    yield Action(f"{service.name}.{UNKNOWN_TOOL}", worst(effects), args, None, service, place)
    for tool, _ in may_be:
        yield Action(tool.name, tool.effect, None, tool, service, place)


def _args(
    call: Call,
    template: Template,
    segments: tuple[str, ...],
    content: Content | None,
    of_query: frozenset[str] = frozenset(),
) -> Mapping[str, Value] | None:
    """What stands in the path, the query and the body, by its names; None where two of them say different things.

    Of a method that takes a body a query is told only as far as it repeats the body, which may be empty, or the service
    is known to take it from there (`of_query`): whether the service reads such a parameter in place of a missing
    member, nobody knows. `POST /v1/charges/ch_1/refund?amount=1` may refund one cent, or everything.
    """
    if content is None or not isinstance(content.value, dict):
        return None
    args: dict[str, Value] = dict(content.value)
    try:
        query = read_form(call.query.encode("ascii"))
    except (ContentRefused, UnicodeError):
        return None
    path = _place(template, segments)
    if call.method in _WITH_BODY and not query.keys() <= content.value.keys() | of_query:
        return None
    others = (*cast("dict[str, Value]", query).items(), *path.items())
    for name, value in others:
        if args.setdefault(name, value) != value:
            return None
    return args


def _place(template: Template, segments: tuple[str, ...]) -> Mapping[str, Value]:
    """The parameters of the path; none of them where one is not UTF-8."""
    try:
        return {name: segments[at].encode("latin-1").decode("utf-8") for name, at in template.parameters}
    except UnicodeError:
        return {}


def _of_graphql(call: Call, service: KnownService, content: Content | None) -> Iterator[Action]:
    if call.method == "GET":
        if content is not None and content.value:
            raise ContentRefused("a GraphQL request in a query has no body beside it")
        fields = read_graphql_query(read_form(call.query.encode("ascii")))
    elif call.method != "POST":
        raise ContentRefused("a GraphQL request is sent by GET or POST")
    elif content is None:
        yield Action(None, None, None, None, service)
        return
    elif call.query:
        raise ContentRefused("a GraphQL request in a body has no query beside it")
    else:
        fields = read_graphql(cast("Json", content.value))
    for field in fields:
        yield _field(service, field)


def _field(service: KnownService, field: RootField) -> Action:
    # Where it acts is not told by its arguments: what is selected inside leads from one owner's things to another's.
    tool = service.field(field.operation, field.name)
    args = {name: as_doubles(value) for name, value in field.arguments.items()}
    if tool is not None:
        return Action(tool.name, tool.effect, args, tool, service)
    name = f"{service.name}.{field.operation}.{field.name}"
    if len(name) > MAX_NAME:
        return unknown(service, service.name, args)
    return Action(name, WRITE if field.operation == "mutation" else READ, args, None, service)


def _of_mcp(call: Call, service: KnownService, content: Content | None) -> Iterator[Action]:
    match call.method:
        case "GET":
            yield Action(f"{service.name}/stream", READ, {}, None, service, handshake=True)
        case "DELETE":
            yield Action(f"{service.name}/close", READ, {}, None, service, handshake=True)
        case "POST" if content is None:
            yield Action(None, None, None, None, service)
        case "POST" if content is not None and content.form:
            raise ContentRefused("JSON-RPC is JSON, and this is a form")
        case "POST" if content is not None:
            for message in read_json_rpc(cast("Json", content.value)):
                yield _message(service, message)
        case _:
            yield unknown(service, service.name, None)


def of_mcp_tool(service: KnownService | None, named: str, args: Mapping[str, Value] | None = None) -> Action:
    """What a call of a server's tool is, by the name that the server gives it."""
    if service is None:
        return unknown(None, None, args)
    name = f"{service.name}.{named}"
    if not _TOOL.fullmatch(named) or len(name) > MAX_NAME:
        return unknown(service, service.name, args)
    tool = service.tools.get(name)
    return Action(name, WRITE if tool is None else tool.effect, args, tool, service, args or {})


def _message(service: KnownService, message: Message) -> Action:
    if not isinstance(message, Request):
        return Action(f"{service.name}/reply", READ, {}, None, service, handshake=True)
    params = {} if isinstance(message.params, list) else message.params
    args: Value = params
    if message.method == "tools/call":
        named, args = params.get("name"), params.get("arguments", {})
        members = args if isinstance(args, dict) else None
        return of_mcp_tool(service, named if isinstance(named, str) else "", members)
    name = f"{service.name}/{message.method}"
    if not _TOOL.fullmatch(message.method) or len(name) > MAX_NAME:
        return unknown(service, service.name, None)
    effect, handshake = _METHODS.get(message.method, (WRITE, False))
    return Action(name, effect, params, None, service, handshake=handshake)
