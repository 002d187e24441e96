"""What must hold between a case and the rest of its policy: that what it names is there, and can do what it expects."""

from collections.abc import Iterator

from rules.policy import values
from rules.policy.cases import BY_RULE, moment, parse_call, parse_expected
from rules.policy.checks import Finding
from rules.policy.invalid import ValueInvalid
from rules.policy.models import AccountDocument, CaseDocument, TenantDocument


def check_cases(document: TenantDocument) -> Iterator[Finding]:
    """Every finding in the tests of a policy whose other parts are valid."""
    for index, case in enumerate(document.tests or ()):
        here = ("tests", index)
        account = document.accounts.get(case.account)
        if account is None:
            fix = values.suggest(case.account, tuple(document.accounts))
            yield Finding((*here, "account"), f"account: {case.account} is not declared", fix)
        connection = parse_call(case.call)[1]
        if connection not in document.connections:
            fix = values.suggest(connection, tuple(document.connections))
            yield Finding((*here, "call"), f"call: connection {connection} is not declared", fix)
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
