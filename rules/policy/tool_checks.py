"""What must hold between a policy and the catalogue: that services and tools which it names are there."""

from collections.abc import Iterator, Mapping

from rules.catalogue.catalogue import MCP, Catalogue
from rules.catalogue.known import KnownService
from rules.classification import MAX_NAME
from rules.policy import values
from rules.policy.finding import UNREACHABLE_OUTCOME, Finding
from rules.policy.matcher import ANY, names_tools_of, wider
from rules.policy.models import AccountDocument, TenantDocument
from rules.services import NAMES


def check_services(document: TenantDocument, catalogue: Catalogue) -> Iterator[Finding]:
    """Every finding in what connections say of their services."""
    for name, connection in document.connections.items():
        at = ("connections", name)
        service = connection.service
        if service is not None and service not in (*NAMES, *catalogue.names):
            known = tuple(sorted({*NAMES, *catalogue.names}))
            fix = f"{values.suggest(service, known)} Or put a file of the catalogue beside the policy"
            yield Finding((*at, "service"), "service: not a service that is known by name", fix)
            continue
        known_service = catalogue.of(name, connection.host, service, connection.endpoint)
        if connection.endpoint is not None and (known_service is None or known_service.protocol != MCP):
            yield Finding((*at, "endpoint"), "endpoint: only MCP servers have one", "remove it, or write service: mcp")
        if connection.account is not None and (
            known_service is None or (known_service.account_header is None and known_service.account_arg is None)
        ):
            message = "account: it is not known how calls of this service say their account"
            yield Finding((*at, "account"), message, "remove it, or say it in a file of the catalogue (account:)")
        modes = () if known_service is None else tuple(known_service.modes)
        if connection.mode is not None and connection.mode not in modes:
            yield Finding(
                (*at, "mode"), "mode: the service has no such kind of secret", values.suggest(connection.mode, modes)
            )
        elif connection.mode is not None and connection.secret is None:
            yield Finding((*at, "mode"), "mode: there is no secret", "add secret: NAME, or remove it")


def check_workflows(document: TenantDocument, catalogue: Catalogue) -> Iterator[Finding]:
    """Every finding in the tools that outcomes of workflows name."""
    if not document.workflows:
        return
    connected = _connected(document, catalogue)
    reachable = list(connected.values())
    for name, workflow in document.workflows.items():
        for position, tool in enumerate(workflow.outcome.tools):
            problem = tool_problem(tool, reachable)
            if problem is not None:
                yield Finding(("workflows", name, "outcome", "tools", position), *problem)
        tools, accounts = workflow.outcome.tools, document.accounts.values()
        if tools and not any(_may(account, tool, connected) for account in accounts for tool in tools):
            message = f"no account may call what the outcome of {name} is: it is never reached"
            fix = f"allow {tools[0]} in an account, or write another outcome"
            yield Finding(("workflows", name), message, fix, False, True, UNREACHABLE_OUTCOME)


def _connected(document: TenantDocument, catalogue: Catalogue) -> dict[str, KnownService]:
    """The services that are known, by connection."""
    return {
        connection: known
        for connection, of in document.connections.items()
        if (known := catalogue.of(connection, of.host, of.service, of.endpoint)) is not None
    }


def _may(account: AccountDocument, tool: str, connected: Mapping[str, KnownService]) -> bool:
    """Whether an account may perhaps call a tool, or one whose name begins so; conditions and deny rules aside."""
    if account.stage == "observe":
        return True
    for rule in account.rules:
        allow = rule.allow
        if allow is None or not any(_overlap(name, tool) for name in allow.tools or (ANY,)):
            continue
        on = (known for name, known in connected.items() if allow.connection in (None, ANY, name))
        if any(names_tools_of(tool, known.name) for known in on):
            return True
    return False


def _overlap(one: str, other: str) -> bool:
    """Whether two names of tools can mean the same one."""
    return one == other or other in wider(one) or one in wider(other)


def check_tools(
    name: str, account: AccountDocument, document: TenantDocument, catalogue: Catalogue
) -> Iterator[Finding]:
    """Every finding in the tools that an account's rules name."""
    connected = _connected(document, catalogue)
    for index, rule in enumerate(account.rules):
        verb, target = ("allow", rule.allow) if rule.allow is not None else ("deny", rule.deny)
        if target is None or target.tools is None:
            continue
        reachable = [known for connection, known in connected.items() if target.connection in (None, ANY, connection)]
        for position, tool in enumerate(target.tools):
            problem = tool_problem(tool, reachable)
            if problem is not None:
                message, fix = problem
                yield Finding(("accounts", name, "rules", index, verb, "tools", position), message, fix)


def nameable(tool: str, known: KnownService) -> bool:
    """Whether a rule on a connection of that service may name the tool."""
    return len(tool) <= MAX_NAME and tool_problem(tool, [known]) is None


def tool_problem(tool: str, reachable: list[KnownService]) -> tuple[str, str] | None:
    """What is wrong with naming a tool where these services are, and the fix; None: nothing."""
    of_service = [known for known in reachable if names_tools_of(tool, known.name)]
    if not of_service:
        known = tuple(sorted({known.name for known in reachable}))
        return f"{tool}: no connection here has tools of that service", (
            f"connected: {', '.join(known)}" if known else "add a connection to the service, or name its service:"
        )
    if tool.endswith(ANY):
        beginning = tool.removesuffix(ANY)
        if any(_open(known) or any(n.startswith(beginning) for n in known.tools) for known in of_service):
            return None
        of = of_service[0].name
        return (
            None
            if beginning in ("", f"{of}.")
            else (f"{tool}: no tool's name begins so", f"see exeat catalogue show {of}")
        )
    if any(_open(known) or tool in known.tools or tool == f"{known.name}.unknown" for known in of_service):
        return None
    names = tuple(name for known in of_service for name in known.tools)
    return f"{tool}: there is no such tool", values.suggest(tool, names) if len(names) < 8 else _nearest(tool, names)


def _open(known: KnownService) -> bool:
    """Whether it may have tools that the catalogue does not list: GraphQL's fields, a server that nobody imported."""
    return bool(known.graphql) or (known.protocol == MCP and not known.tools)


def _nearest(tool: str, names: tuple[str, ...]) -> str:
    near = values.suggest(tool, names)
    return near if near.startswith("did you mean") else f"see exeat catalogue show {tool.partition('.')[0]}"
