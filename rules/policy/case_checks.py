"""What must hold between a case and the rest of its policy: that what it names is there, and can do what it expects."""

import json
from collections.abc import Iterator

from rules.catalogue.catalogue import NOTHING_ADDED, Catalogue
from rules.policy import values
from rules.policy.cases import BY_RULE, is_tool, moment, parse_call, parse_expected
from rules.policy.finding import Finding
from rules.policy.invalid import ValueInvalid
from rules.policy.models import AccountDocument, CaseDocument, TenantDocument
from rules.policy.tool_cases import request_of


def check_cases(document: TenantDocument, catalogue: Catalogue = NOTHING_ADDED) -> Iterator[Finding]:
    """Every finding in the tests of a policy whose other parts are valid, beside this catalogue."""
    for index, case in enumerate(document.tests or ()):
        here = ("tests", index)
        account = document.accounts.get(case.account)
        if account is None:
            fix = values.suggest(case.account, tuple(document.accounts))
            yield Finding((*here, "account"), f"account: {case.account} is not declared", fix)
        if is_tool(case.call):
            yield from _tool(index, case, document, catalogue)
        else:
            connection = parse_call(case.call)[1]
            if connection not in document.connections:
                fix = values.suggest(connection, tuple(document.connections))
                yield Finding((*here, "call"), f"call: connection {connection} is not declared", fix)
            for key in ("args", "connection", "found"):
                if getattr(case, key) is not None:
                    yield Finding((*here, key), f"{key}: the call names no tool", "remove it, or write a tool as call:")
        if case.body is not None and case.form is not None:
            yield Finding((*here, "form"), "form: a request has one body, and body is there too", "remove one of them")
        if case.at is not None:
            try:
                moment(case.at, values.zone(document.timezone))
            except ValueInvalid as error:
                yield Finding((*here, "at"), f"at: {error.message}", error.fix)
        if account is not None and case.rule is not None:
            for message, fix in _rule(case, case.rule, account):
                yield Finding((*here, "rule"), f"rule: {message}", fix)


def _tool(index: int, case: CaseDocument, document: TenantDocument, catalogue: Catalogue) -> Iterator[Finding]:
    here = ("tests", index)
    for key in ("body", "form"):
        if getattr(case, key) is not None:
            yield Finding((*here, key), f"{key}: a tool has arguments", "write args:")
    args = {} if case.args is None else json.loads(case.args)
    if not isinstance(args, dict):
        yield Finding((*here, "args"), "args: not a mapping", "write {name: value}")
        return
    connected = {
        name: known
        for name, of in document.connections.items()
        if case.connection in (None, name)
        and (known := catalogue.of(name, of.host, of.service, of.endpoint)) is not None
        and case.call.startswith((f"{known.name}.", f"{known.name}/"))
    }
    if len(connected) != 1:
        message = f"call: {'no connection' if not connected else 'more than one connection'} has this tool"
        fix = "name its connection:" if connected else "see exeat catalogue list"
        yield Finding((*here, "call"), message, fix)
        return
    try:
        request_of(next(iter(connected.values())), case.call, args)
    except ValueInvalid as error:
        yield Finding((*here, "call"), f"call: {error.message}", error.fix)


def _rule(case: CaseDocument, named: str, account: AccountDocument) -> Iterator[tuple[str, str]]:
    rule = next((rule for rule in account.rules if rule.id == named), None)
    code = parse_expected(case.expect)
    if rule is None:
        ids = tuple(rule.id for rule in account.rules)
        yield f"{named} is no rule of {case.account}", values.suggest(named, ids)
    elif code is not None and code not in BY_RULE:
        yield f"no rule decides {code}", "remove rule, or expect deny rule_denied"
    elif code is None and rule.allow is None:
        yield f"{named} denies, and can allow nothing", "name the rule that allows, or expect deny rule_denied"
    elif code == "rule_denied" and rule.deny is None:
        yield f"{named} allows, and can deny nothing", "name the rule that denies"
