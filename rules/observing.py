"""Stage `observe`: an account's rules are tried and not obeyed, until a day that the policy names."""

from rules.call import Call, Facts


def observing(call: Call, facts: Facts) -> bool:
    """Whether what the rules deny is only recorded. Everything else (host, secret, limits) holds as ever."""
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    return account is not None and account.observed_until is not None and facts.now < account.observed_until
