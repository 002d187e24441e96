"""The policy that `exeat init` writes: valid as it stands, denies everything, and shows what to write next."""

from typing import Final

from rules.policy.values import check_email, check_name, check_timezone

_TEXT: Final = """\
# The policy of one tenant. Check it with `exeat check`, put it in force with `exeat policy apply`.
# Whatever no rule allows is denied. As it stands, this policy denies every call.
exeat: 1
tenant: {tenant}
timezone: {timezone} # where a day of a spend limit begins

# How long an agent's credential lives, and the longest that may be asked for.
credentials: {{ttl: 5m, max_ttl: 1h}}

# The hosts that agents may reach, and the secret that is attached to their calls there.
# `exeat secret set NAME` reads a secret from standard input; its value never stands in a policy.
connections: {{}}
#  github: {{host: api.github.com, secret: github/bot, present: bearer}}
#  models: {{host: api.openai.com, secret: openai/prod, price: 0.002 USD}}

# The service accounts that agents act as. Each has three owners: who answers for what it does, who runs it, and who
# accepted the risk.
accounts:
  my-agent:
    owners: {{accountable: {owner}, system: {owner}, risk: {owner}}}
    limits:
      concurrency: 4
#      rate: [{{connection: github, max: 5, per: second}}]
#      spend: [{{meter: price, max: 5 USD, per: day}}]
    rules: []
#      - {{id: read-issues, allow: {{connection: github, methods: [GET], path: "/repos/{{owner}}/{{repo}}/issues"}}}}
#      - {{id: chat, allow: {{connection: models, methods: [POST], path: /v1/chat/completions}}}}
#      - {{id: never-delete, deny: {{connection: "*", methods: [DELETE]}}}}
"""


def starter_policy(*, tenant: str = "acme", owner: str = "you@acme.example", timezone: str = "UTC") -> str:
    """The text of a policy to start from. Raises ValueInvalid when a value could not stand in a policy."""
    return _TEXT.format(tenant=check_name(tenant), owner=check_email(owner), timezone=check_timezone(timezone))
