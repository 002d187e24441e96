"""Every error names its place and its fix; all of them come at once."""

from pathlib import Path

import pytest

from rules.policy.load import load_policy, parse_policy
from rules.policy.source import PolicyError, PolicyInvalid, PolicySource

BASE = """\
exeat: 1
tenant: acme
connections:
  tickets: {host: acme.zendesk.com, secret: zendesk/prod}
  models: {host: api.openai.com, price: 0.002 USD}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}
    limits:
      spend: [{meter: price, max: 5 USD, per: day}]
    rules:
      - {id: read, allow: {connection: tickets, methods: [GET], path: /api/**}}
      - {id: chat, allow: {connection: models, path: /v1}}
"""


def errors_of(text: str | bytes) -> tuple[PolicyError, ...]:
    raw = text.encode() if isinstance(text, str) else text
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy({"acme.yaml": raw})
    assert all(error.file == "acme.yaml" and error.message and error.fix for error in caught.value.errors)
    return caught.value.errors


def test_the_base_of_these_tests_is_valid_and_without_warnings() -> None:
    assert parse_policy({"acme.yaml": BASE.encode()}).warnings == ()


READ = "{id: read, allow: {connection: tickets, methods: [GET], path: /api/**}}"
OWNERS = "    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}\n"
SPEND = "      spend:"
RATES = "      rate: [{}]\n      spend:"
SPIKES = "      spikes: [{}]\n      spend:"
SPIKE = "meter: price, per: hour, over: 5x"
RATE = "{connection: models, max: 1, per: day}"

CASES = [
    # (what replaces what, line, column, words of the message, words of the fix)
    ("connections:", "conections:", 3, 1, "unknown key conections", "did you mean connections?"),
    ("secret: zendesk", "secrets: zendesk", 4, 37, "unknown key secrets", "did you mean secret?"),
    ("per: day", "per: daily", 10, 47, "per: not one of", "did you mean day?"),
    ("meter: price", "meter: prize", 10, 23, "meter: not one of", "did you mean price?"),
    ("meter: price", "meter: rows", 10, 23, "meter: not one of", "known here"),
    ("meter: price", "meter: Wrong!", 10, 23, "not the name of a meter", "TOOL.amount"),
    ("meter: price", "meter: stripe.refund.create.amount", 10, 23, "no connection here has tools", "openai"),
    ("meter: price", "meter: openai.chat.completions.create.amount", 10, 23, "has no amount", "none is declared"),
    ("meter: price", "meter: calls", 10, 35, "calls counts a number, and this is money", "whole number"),
    ("meter: price, max: 5 USD", "meter: bytes_out, max: 10 mb", 10, 39, "not a size", "10 MB"),
    ("meter: price, max: 5 USD", "meter: bytes_out, max: 10 GB", 10, 39, "out of range", "9 GB"),
    ("meter: price, max: 5 USD", "meter: calls, max: 10 MB", 10, 35, "and this is bytes", "whole number"),
    ("meter: price, max: 5 USD", "meter: calls, max: 0", 10, 35, "out of range", "at least 1"),
    (SPEND, RATES.format("{connection: models, max: 1, per: day, burst: 1000000}"), 10, 60, "71 years", "fewer"),
    (SPEND, RATES.format("{max: 1, per: day}"), 10, 14, "neither a connection nor tools", "add connection"),
    (SPEND, RATES.format("{tools: [x.y], max: 1, per: day}"), 10, 23, "no connection here", "openai"),
    ("spend:", "concurrency: [{max: 1}, {max: 2}]\n      spend:", 10, 31, "a second limit", "keep one"),
    ("spend:", "concurrency: [{max: 1, queue: {max: 2, wait: 2m}}]\n      spend:", 10, 52, "too long", "at most 60s"),
    ("spend:", "concurrency: [{max: 1, queue: {max: 0, wait: 2s}}]\n      spend:", 10, 43, "out of range", "least 1"),
    ("spend:", "concurrency: [{max: 1, queue: {max: 2}}]\n      spend:", 10, 30, "wait", "add"),
    ("per: day}", "per: day, by: [account]}", 10, 56, "this limit is agent's alone", "remove account"),
    ("per: day}", "per: day, by: [object]}", 10, 56, "amounts are not counted so", "limit its rate"),
    ("per: day}", "per: day, by: [run, run]}", 10, 56, "the same word twice", "write it once"),
    ("per: day}", "per: day, by: [day]}", 10, 57, "not one of the known", "known here"),
    ("per: day}", "per: run, by: [run]}", 10, 56, "per run already", "remove run"),
    ("per: day}", "per: day, alert: 80}", 10, 59, "not a share", "80%"),
    ("per: day}", "per: day, alert: [80%, 80%]}", 10, 59, "not a share", "80%"),
    ("tenant: acme", "tenant: acme\nlimits: {when_unavailable: {local: 0%}}", 3, 36, "not a share", "25%"),
    ("tenant: acme", "tenant: acme\nlimits: {when_unavailable: {local: 101%}}", 3, 36, "not a share", "25%"),
    ("tenant: acme", "tenant: acme\nlimits: {when_unavailable: {local: 25}}", 3, 36, "not a share", "25%"),
    ("tenant: acme", "tenant: acme\nlimits: {when_unavailable: {local: 0.5%}}", 3, 36, "not a share", "25%"),
    ("tenant: acme", "tenant: acme\nlimits: {when_unavailable: {local: {local: 25%}}}", 3, 36, "not a share", "25%"),
    ("tenant: acme", "tenant: acme\nlimits: {when_unavailable: {}}", 3, 10, "lacks local", "add local"),
    ("      spend:", "      when_unavailable: {local: 25%}\n      spend:", 10, 7, "unknown key", "known here"),
    ("per: day}", "per: day, over: {approve: lead, hard: 9 USD}}", 10, 68, "no role lead", "none is declared"),
    (SPEND, SPIKES.format("{meter: prize, per: hour, over: 5x, least: 1}"), 10, 24, "of agent counts prize", "calls"),
    (SPEND, SPIKES.format("{meter: price, per: week, over: 5x, least: 1 USD}"), 10, 36, "not one of", "known here"),
    (SPEND, SPIKES.format("{meter: price, per: hour, over: 1.4x, least: 1 USD}"), 10, 48, "it is usual", "1.5x"),
    (SPEND, SPIKES.format("{meter: price, per: hour, over: 5, least: 1 USD}"), 10, 48, "not a multiple", "5x"),
    (SPEND, SPIKES.format(f"{{{SPIKE}}}"), 10, 16, "lacks least", "add least"),
    (SPEND, SPIKES.format(f"{{{SPIKE}, least: 1 EUR}}"), 10, 59, "of agent count USD", "in USD"),
    (SPEND, SPIKES.format(f"{{{SPIKE}, least: 1 USD, by: [account]}}"), 10, 70, "this is agent's alone", "remove by"),
    (SPEND, SPIKES.format(f"{{{SPIKE}, least: 1 USD, then: stopp}}"), 10, 72, "not one of", "stop?"),
    (SPEND, SPIKES.format("{meter: calls, per: day, over: 5x, least: 1 USD}"), 10, 58, "calls are counted", "number"),
    (
        SPEND,
        SPIKES.format(f"{{{SPIKE}, least: 1 USD}}, {{{SPIKE}, least: 2 USD}}"),
        10, 67, "a second alert per hour", "keep one",
    ),
    ("[GET]", "[get]", 12, 59, "upper-case", "write GET"),
    ("[GET]", "[GTE]", 12, 59, "not a method", "did you mean GET?"),
    ("[GET]", "[TRACE]", 12, 59, "not a method", "known here"),
    ("[GET]", '["*"]', 12, 59, "no wildcard method", "leave `methods` out"),
    ("[GET]", "[]", 12, 58, "empty list", "remove the key"),
    ("[GET]", "GET", 12, 58, "not a list", "in brackets"),
    ("connection: tickets", "connection: ticket", 12, 40, "ticket is not declared", "did you mean tickets?"),
    ("path: /api/**", "path: api/**", 12, 71, "starts with a slash", "write /api/**"),
    ("path: /api/**", 'path: "a\\e[31m\\n"', 12, 71, "starts with a slash", "start it with /"),
    ("path: /api/**", "path: /api/**/x", 12, 71, "only at the end", "/prefix/**"),
    ("path: /api/**", "path: /api/*", 12, 71, "no * segment", "{name}"),
    ("path: /api/**", 'path: "/a/b{id}"', 12, 71, "one whole segment", "{id}"),
    ("path: /api/**", 'path: "/{id}/{id}"', 12, 71, "stands twice", "name of its own"),
    ("path: /api/**", "path: /a/../b", 12, 71, "never forwarded", "dot segments"),
    ("path: /api/**", "path: /a//b", 12, 71, "empty segment", "slashes"),
    ("path: /api/**", "path: /a?b=c", 12, 71, "without query", "leave out"),
    ("path: /api/**", "path: /café", 12, 71, "stands in no path", "caf%C3%A9"),
    ("path: /api/**", "path: /" + "a/" * 40, 12, 71, "more than 32", "shorten"),
    ("id: chat", "id: read", 13, 14, "read is taken by a rule above", "rename"),
    ("id: chat", "id: Chat!", 13, 14, "not a name", "lower-case"),
    ("allow: {connection: mo", "by: x, allow: {connection: mo", 13, 20, "unknown key by", "not part of this"),
    ("allow: {connection: mo", "when: bdy.a == 1, allow: {connection: mo", 13, 26, "no variable or function", "body?"),
    ("allow: {connection: mo", "when: run == 1, allow: {connection: mo", 13, 26, "no matching overload", "policy.md"),
    ("allow: {connection: mo", "when: body.a, allow: {connection: mo", 13, 26, "true or false", "compare it"),
    (READ, "{id: read}", 12, 9, "either allow or deny", "allow:"),
    (READ, "{id: read, allow: zendesk.ticket.read}", 12, 27, "no connection here has tools of that", "openai"),
    (READ, "{id: read, allow: openai.zzzzzz}", 12, 27, "there is no such tool", "exeat catalogue show openai"),
    (READ, "{id: read, allow: openai.chat.completions.creat}", 12, 27, "no such tool", "did you mean openai.chat"),
    (READ, "{id: read, allow: openai.nothing.*}", 12, 27, "no tool's name begins so", "exeat catalogue show openai"),
    (READ, "{id: read, allow: Open-AI!}", 12, 27, "not the name of a tool", "stripe.refund.create"),
    (READ, "{id: read, allow: {connection: models}}", 12, 27, "path: is missing", "add path: /api"),
    (READ, "{id: read, allow: {effects: [read]}}", 12, 27, "neither which connection nor which tools", "tools:"),
    (READ, "{id: read, allow: {effects: [reed], tools: ['*']}}", 12, 38, "not one of the known words", "read"),
    ("host: acme.zendesk.com", "host: https://acme.zendesk.com/x", 4, 19, "not a URL", "name only"),
    ("host: acme.zendesk.com", 'host: "*.zendesk.com"', 4, 19, "no wildcards", "one connection for each"),
    ("host: acme.zendesk.com", "host: acme.zendesk.com:443", 4, 19, "without a port", "`port`"),
    ("host: acme.zendesk.com", "host: acme_zendesk", 4, 19, "not a host name", "letters, digits"),
    ("host: acme.zendesk.com", 'host: "2130706433"', 4, 19, "a number where a name", "decimal"),
    ("host: acme.zendesk.com", "host: 2130706433", 4, 19, "not text", "quote it"),
    ("host: acme.zendesk.com", "host: 127.1", 4, 19, "a number where a name", "decimal"),
    ("host: acme.zendesk.com", "host: 0x7f000001", 4, 19, "a number where a name", "decimal"),
    ("host: acme.zendesk.com", "host: 169.254.169.254", 4, 19, "never dialled", "another"),
    ("host: acme.zendesk.com", "host: 10.1.2.3", 4, 19, "private address", "networks: [10.1.2.3]"),
    ("host: acme.zendesk.com", "host: xn--a", 4, 19, "international", "xn--"),
    ("host: acme.zendesk.com", "host: API.OpenAI.com.", 5, 18, "is connection tickets already", "remove one"),
    ("host: acme.zendesk.com, ", "", 4, 3, "lacks host", "add host: "),
    ("secret: zendesk/prod", "secret: sk_live/../x!", 4, 45, "not the name of a secret", "exeat secret set"),
    ("secret: zendesk/prod", "port: 70000", 4, 43, "out of range", "at most 65535"),
    ("secret: zendesk/prod", 'port: "443"', 4, 43, "not a whole number", "without quotes"),
    ("secret: zendesk/prod", "port: 443.0", 4, 43, "not a whole number", "without quotes, point"),
    ("secret: zendesk/prod", "scheme: htps", 4, 45, "not one of", "did you mean https?"),
    ("secret: zendesk/prod", "scheme: http", 4, 45, "http sends the call", "unsafe_plaintext: true"),
    ("secret: zendesk/prod", "unsafe_plaintext: true", 4, 55, "the scheme is https", "remove"),
    ("secret: zendesk/prod", "unsafe_plaintext: yes", 4, 55, "not true or false", "write true"),
    ("secret: zendesk/prod", "present: bearer", 4, 46, "no secret to present", "add secret"),
    ("secret: zendesk/prod", "secret: a, present: beerer", 4, 57, "not a way to present", "{basic: user}"),
    ("secret: zendesk/prod", "secret: a, present: {basic: 'a:b'}", 4, 57, "colon", "documentation"),
    ("secret: zendesk/prod", "secret: a, present: {header: Host}", 4, 57, "Host", "documentation"),
    ("secret: zendesk/prod", "secret: a, present: {header: A, prefx: b}", 4, 57, "not a way to present", "prefix"),
    ("secret: zendesk/prod", "dial: saas.example", 4, 43, "not a name", "10.1.2.3"),
    ("secret: zendesk/prod", 'dial: "169.254.169.254:80"', 4, 43, "metadata", "another"),
    ("secret: zendesk/prod", 'dial: "[::ffff:169.254.169.254]:80"', 4, 43, "IPv4 address in IPv6", "another"),
    ("secret: zendesk/prod", 'dial: "224.0.0.1"', 4, 43, "multicast", "another"),
    ("secret: zendesk/prod", 'dial: "0.0.0.0:1"', 4, 43, "unspecified", "another"),
    ("secret: zendesk/prod", 'dial: "fe80::1%eth0"', 4, 43, "zone", "leave out"),
    ("secret: zendesk/prod", 'dial: "10.0.0.1:0"', 4, 43, "not a port", "65535"),
    ("secret: zendesk/prod", 'dial: "[::1"', 4, 43, "brackets", "[fd12::1]"),
    ("secret: zendesk/prod", "networks: [10.0.0.1/8]", 4, 48, "bits behind", "write 10.0.0.0/8"),
    ("secret: zendesk/prod", "networks: [0.0.0.0/0]", 4, 48, "never dialled", "smaller networks"),
    ("secret: zendesk/prod", 'networks: ["::/0"]', 4, 48, "never dialled", "smaller networks"),
    ("secret: zendesk/prod", "networks: [169.254.169.0/24]", 4, 48, "never dialled", "smaller networks"),
    ("secret: zendesk/prod", "networks: [intranet]", 4, 48, "not a network", "10.1.0.0/16"),
    ("secret: zendesk/prod", "networks: 10.0.0.0/8", 4, 47, "not a list", "in brackets"),
    ("secret: zendesk/prod", 'dial: "10.0.0.1", networks: [10.0.0.0/8]', 4, 65, "nothing beside dial", "remove"),
    ("secret: zendesk/prod", "ca: ../ca.pem", 4, 41, "not a file beside", "folder"),
    ("secret: zendesk/prod", "ca: /etc/ca.pem", 4, 41, "not a file beside", "folder"),
    ("secret: zendesk/prod", "ca: gone.pem", 4, 41, "missing", "beside the policy"),
    ("secret: zendesk/prod", "extra_ca: gone.pem", 4, 47, "extra_ca: the file is missing", "beside the policy"),
    ("secret: zendesk/prod", "extra_ca: ../ca.pem", 4, 47, "not a file beside", "folder"),
    ("secret: zendesk/prod", "port: 22", 4, 43, "another service (SSH)", "unsafe_port: true"),
    ("secret: zendesk/prod", "port: 6379", 4, 43, "another service (Redis)", "unsafe_port: true"),
    ("secret: zendesk/prod", "port: 6000", 4, 43, "another protocol than HTTP", "unsafe_port: true"),
    ("secret: zendesk/prod", 'dial: "10.0.0.1:25"', 4, 43, "dial: port 25 belongs to another service", "unsafe_port"),
    ("secret: zendesk/prod", "unsafe_port: true", 4, 50, "this port needs none", "remove"),
    ("secret: zendesk/prod", "port: 25, dial: 10.0.0.1:8025, unsafe_port: true", 4, 81, "needs none", "remove"),
    ("tenant: acme", "tenant: acme\ndenied_keys: [63ec]", 3, 15, "not the hash of a public key", "openssl x509"),
    ("price: 0.002 USD", "price: 0.002", 5, 41, "not an amount", "0.002 USD"),
    ("price: 0.002 USD", "price: 0.002 usd", 5, 41, "not an amount", "write 0.002 USD"),
    ("price: 0.002 USD", "price: 0.0000001 USD", 5, 41, "not an amount", "six decimals"),
    ("price: 0.002 USD", "price: -1 USD", 5, 41, "not an amount", "0.002 USD"),
    ("price: 0.002 USD", "price: 1e3 USD", 5, 41, "not an amount", "0.002 USD"),
    ("price: 0.002 USD", "price: 0.002 EUR", 10, 14, "cost EUR, which no spend limit", "max: 5 EUR"),
    ("max: 5 USD", "max: 5", 10, 35, "price counts money, and this is a number", "500 USD"),
    ("max: 5 USD", "max: 5 dollars", 10, 35, "not an amount", "0.002 USD"),
    (OWNERS, "", 7, 3, "lacks owners", "accountable: ana@"),
    ("risk: risk@acme.example", "risk: nobody", 8, 76, "not a mail address", "ana@acme.example"),
    (", risk: risk@acme.example", "", 8, 5, "lacks risk", "risk@acme.example"),
    ("    limits:\n", "    stage: observe\n    limits:\n", 9, 12, "stage: observe has no end", "add until:"),
    ("      spend:", "      concurrency: 0\n      spend:", 10, 20, "out of range", "at least 1"),
    (SPEND, RATES.format("{connection: nope, max: 1, per: day}"), 10, 27, "nope is not declared", "models, tickets"),
    (SPEND, RATES.format(f"{RATE}, {RATE}"), 10, 54, "a second rate per day", "keep one"),
    ("d: [{", "d: [{meter: price, max: 9 USD, per: day}, {", 10, 53, "a second limit per day in USD", "keep one"),
    ("tenant: acme", "tenant: Acme", 2, 9, "not a name", "lower-case"),
    ("tenant: acme", 'tenant: "-"', 2, 9, "not a name", "lower-case"),
    ("tenant: acme", "tenant:", 2, 1, "empty where text is needed", "write it"),
    ("tenant: acme\n", "", 1, 1, "lacks tenant", "add tenant: acme"),
    ("exeat: 1", "exeat: 2", 1, 8, "not one of", "1"),
    ("exeat: 1", "exeat: true", 1, 8, "not one of", "1"),
    ("tenant: acme", "tenant: acme\ntimezone: Europe/Berln", 3, 11, "not a time zone", "Europe/Berlin"),
    ("tenant: acme", "tenant: acme\ntimezone: ../../etc/passwd", 3, 11, "not a time zone", "known here"),
    ("tenant: acme", "tenant: acme\ncredentials: {ttl: 2h}", 3, 20, "longer than max_ttl", "1h or less"),
    ("tenant: acme", "tenant: acme\ncredentials: {max_ttl: 2d}", 3, 24, "longer than a credential may live", "24h"),
    ("tenant: acme", "tenant: acme\ncredentials: {ttl: 300}", 3, 20, "not a duration", "write 300s"),
    ("tenant: acme", "tenant: acme\ncredentials: {ttl: 0s}", 3, 20, "not a duration", "5m"),
    ("tenant: acme", "tenant: acme\nroles: {Lead: [lea@acme.example]}", 3, 9, "not a name", "lower-case"),
    ("tenant: acme", "tenant: acme\nroles: {lead: [lea]}", 3, 16, "not a mail address", "ana@"),
    ("tenant: acme", "tenant: acme\ntenant: acme", 3, 1, "stands twice", "the first is on line 2"),
    ("accounts:", "accounts: &a", 6, 11, "an anchor", "write the value out"),
    ("tenant: acme", "tenant: *a", 2, 9, "an alias", "quoted"),
    ("tenant: acme", "tenant: *", 2, 10, "aliases", "quote"),
    ("tenant: acme", "tenant: !!str acme", 2, 9, "a YAML tag", "remove"),
    ("tenant: acme", "tenant: acme\n---\nexeat: 1", 3, 1, "a second document", "one tenant a file"),
    ("exeat: 1", "%YAML 1.1\n---\nexeat: 1", 2, 1, "directive", "%"),
    ("  tickets:", "\ttickets:", 4, 1, "a tab", "spaces"),
    ("path: /v1}", "path: /v1/{id}}", 13, 58, "not valid YAML", 'path: "/tickets/{id}"'),
    ("tenant: acme", "tenant: ac\x07me", 2, 11, "may not stand in YAML", "control character"),
    ("tenant: acme", 'tenant: "\\UFFFFFFFF"', 2, 1, "not valid YAML", "quote"),
    ("tenant: acme", "tenant: acme\n? [a]\n: b", 3, 3, "not text", "plain word"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "column", "message", "fix"), CASES, ids=[f"{c[1][:40]}" for c in CASES])
def test_an_error_names_its_place_and_its_fix(
    old: str, new: str, line: int, column: int, message: str, fix: str
) -> None:
    assert BASE.count(old) >= 1
    errors = errors_of(BASE.replace(old, new, 1))
    assert len(errors) == 1, "one mistake is one error"
    error = errors[0]
    assert message in error.message
    assert fix in error.fix
    assert (error.line, error.column) == (line, column)


def test_all_errors_come_at_once_schema_and_meaning_alike() -> None:
    text = (
        BASE.replace("secret: zendesk/prod", "secert: zendesk/prod")  # line 4, schema
        .replace("connection: tickets", "connection: tickets, metods: [GET]")  # line 12, schema
        .replace("{connection: models", "{connection: modles")  # line 13, meaning
        + "      - {id: chat, deny: {connection: nope}}\n"  # line 14, meaning twice
        + "  other:\n    rules: []\n"  # line 15, schema
    )
    errors = errors_of(text)
    assert [(error.line, error.message) for error in errors] == [
        (4, "unknown key secert"),
        (12, "unknown key metods"),
        (13, "connection: modles is not declared"),
        (14, "id: chat is taken by a rule above"),
        (14, "connection: nope is not declared"),
        (15, "other: lacks owners"),
    ]


def test_more_errors_than_anyone_reads_are_counted() -> None:
    errors = errors_of(BASE + "".join(f"unknown{i}: 1\n" for i in range(1500)))
    assert len(errors) == 1000
    assert errors[-1].message == "and 501 errors more"


def test_a_secret_pasted_into_a_policy_is_never_quoted() -> None:
    canary = "sk_live_CANARY=="
    for key in ("secret", "present", "host", "ca", "extra_ca", "dial", "price"):
        line = f"  leak: {{{key}: '{canary}', host: a.example}}" if key != "host" else f"  leak: {{host: '{canary}'}}"
        for error in errors_of(BASE.replace("accounts:", f"{line}\naccounts:")):
            assert "CANARY" not in str(error)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"- a\n", "not a policy"),
        (b"text", "not a policy"),
        (b"exeat: 1\n\xff", "not UTF-8"),
        ("exeat: 1".encode("utf-16"), "not UTF-8"),
        (b"a: " * 1_000_000 + b"\n" * 1_300_000, "larger than"),
        (b"[" * 100_000, "nested deeper"),
        (b"{a: " * 50, "nested deeper"),
        (b"a: &a [x]\nb: [" + b"*a," * 1000 + b"]", "an anchor"),
    ],
)
def test_bytes_that_are_no_policy_are_refused_clearly(raw: bytes, message: str) -> None:
    errors = errors_of(raw)
    assert message in errors[0].message


def test_a_byte_order_mark_is_not_part_of_the_policy() -> None:
    assert parse_policy({"a.yaml": b"\xef\xbb\xbf" + BASE.encode()}).documents[0].tenant == "acme"


def test_words_that_other_readers_take_for_something_else_stay_text() -> None:
    text = BASE.replace("agent:", "no:").replace("id: read", "id: 0x10").replace("id: chat", 'id: "1"')
    document = parse_policy({"a.yaml": text.encode()}).documents[0]
    assert list(document.accounts) == ["no"]
    assert [rule.id for rule in document.accounts["no"].rules] == ["0x10", "1"]


def warnings_of(text: str) -> list[tuple[int, str]]:
    return [(w.line, w.message) for w in parse_policy({"acme.yaml": text.encode()}).warnings]


def test_an_account_without_an_allow_rule_is_warned_about() -> None:
    text = BASE[: BASE.index("    rules:")] + "    rules: []\n"
    assert warnings_of(text) == [
        (4, "no rule allows a call on this connection"),
        (5, "no rule allows a call on this connection"),
        (7, "agent has no allow rule: every call is denied"),
    ]


@pytest.mark.parametrize(
    ("rule", "warning"),
    [
        ('deny: "*"', "denies all of them"),
        ("deny: {connection: tickets}", "denies all of them"),
        ("deny: {connection: tickets, methods: [GET, POST], path: /api/**}", "denies all of them"),
        ("deny: {connection: tickets, methods: [POST], path: /api/**}", None),
        ('deny: {connection: tickets, path: "/api/{x}"}', None),
        ("deny: {connection: tickets, path: /api/v1/**}", None),
        ("deny: {connection: tickets, path: /api}", None),
        ('deny: {connection: "*", path: /api/**}', "denies all of them"),
        ("allow: {connection: tickets, methods: [GET], path: /api/**}", "says the same as"),
    ],
)
def test_a_rule_that_can_never_matter_is_warned_about(rule: str, warning: str | None) -> None:
    found = warnings_of(f"{BASE}      - {{id: more, {rule}}}\n")
    about = [message for _, message in found if message.startswith(("read can never", "more says", "read says"))]
    assert bool(about) == (warning is not None)
    assert warning is None or warning in about[0]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_folder_is_one_policy_one_tenant_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no policy")
    (tmp_path / ".hidden.yaml").write_text("no policy")
    (tmp_path / "b.yml").write_text(BASE.replace("acme\n", "globex\n"))
    source = load_policy(write(tmp_path, a=BASE))
    assert isinstance(source, PolicySource)
    assert [document.tenant for document in source.documents] == ["acme", "globex"]
    assert [file.name for file in source.files] == ["a.yaml", "b.yml"]


def test_the_same_tenant_in_two_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        load_policy(write(tmp_path, a=BASE, b=BASE))
    (error,) = caught.value.errors
    assert (error.file, error.line, error.column) == ("b.yaml", 2, 9)
    assert "the same tenant as in a.yaml" in error.message


def test_the_errors_of_all_files_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        load_policy(write(tmp_path, a=BASE + "x: 1\n", b="\t", c=BASE.replace("acme\n", "c\n") + "y: 1\n"))
    assert [error.file for error in caught.value.errors] == ["a.yaml", "b.yaml", "c.yaml"]


def test_one_file_may_be_named(tmp_path: Path) -> None:
    assert load_policy(write(tmp_path, a=BASE) / "a.yaml").documents[0].tenant == "acme"


@pytest.mark.parametrize("name", ["gone", "gone.yaml", "a\0b"])
def test_a_path_that_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(PolicyInvalid):
        load_policy(tmp_path / name)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match="no policy in this folder"):
        load_policy(tmp_path)


def test_what_is_not_a_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").mkdir()
    with pytest.raises(PolicyInvalid) as caught:
        load_policy(tmp_path)
    assert [(e.file, e.message) for e in caught.value.errors] == [
        ("a.yaml", "not a regular file"),
        ("b.yaml", "not a regular file"),
    ]
