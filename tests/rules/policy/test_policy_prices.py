"""A connection that is charged by a price book: loaded, stored and compiled with it."""

import pytest

from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy
from rules.policy.source import PolicyInvalid

OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
BOOK = "prices: 1\nbook: ours\nread: 2026-11-01\nmodels:\n  m: [{input: 1 EUR, since: 2026-01-01}, {input: 2 EUR}]\n"


def policy(connection: str, spend: str = "") -> bytes:
    limits = f"limits: {{spend: [{spend}]}}, " if spend else ""
    return (
        f"exeat: 1\ntenant: acme\nconnections:\n  models: {{{connection}}}\naccounts:\n"
        f"  a: {{owners: {OWNERS}, {limits}rules: [{{id: all, allow: {{connection: models, path: /**}}}}]}}\n"
    ).encode()


def test_a_bundle_has_the_books_of_its_policy() -> None:
    source = parse_policy(
        {"acme.yaml": policy("host: api.openai.com, price: {book: ours, max_tokens: 99}"), "ours.yaml": BOOK.encode()}
    )
    compiled = compile_policy(source)
    connection = compiled.tenants["acme"].connections["models"]
    assert connection.book is not None
    assert (connection.book.name, connection.currency, connection.max_tokens) == ("ours", "EUR", 99)
    again = PolicySet.from_bundle(compiled.bundle)
    assert (again.digest, again.bundle) == (compiled.digest, compiled.bundle)
    stored = again.tenants["acme"].connections["models"]
    assert stored.book is not None
    assert stored.book.digest == connection.book.digest


def test_another_price_is_another_policy() -> None:
    text = policy("host: api.openai.com, price: {book: ours}")
    one = compile_policy(parse_policy({"acme.yaml": text, "ours.yaml": BOOK.encode()}))
    other = compile_policy(parse_policy({"acme.yaml": text, "ours.yaml": BOOK.replace("2 EUR", "3 EUR").encode()}))
    assert one.digest != other.digest


@pytest.mark.parametrize("change", [b'"m"', b'"1 EUR"', b'"prices":1'])
def test_a_bundle_with_a_book_that_is_none_is_refused(change: bytes) -> None:
    source = parse_policy(
        {"acme.yaml": policy("host: api.openai.com, price: {book: ours}"), "ours.yaml": BOOK.encode()}
    )
    bundle = compile_policy(source).bundle
    with pytest.raises(PolicyInvalid):
        PolicySet.from_bundle(bundle.replace(change, b'" "' if change != b'"prices":1' else b'"prices":2'))


@pytest.mark.parametrize(
    ("connection", "message", "fix"),
    [
        ("host: api.openai.com, price: {book: opena}", "book: there is no price book opena", "did you mean openai?"),
        ("host: crm.example, price: {book: openai}", "book: it is not known what calls of this service use", "usage:"),
        (
            "host: api.stripe.com, price: {book: openai}",
            "book: it is not known what calls of this service use",
            "usage:",
        ),
        ("host: api.openai.com, price: {book: openai, max: 5}", "neither an amount nor a price book", "{book: openai}"),
        ("host: api.openai.com, price: {book: openai, max_tokens: 0}", "max_tokens is out of range", "from 1"),
        ("host: api.openai.com, price: {book: openai, max_tokens: true}", "max_tokens is out of range", "from 1"),
        ("host: api.openai.com, price: {max_tokens: 5}", "neither an amount nor a price book", "{book: openai}"),
    ],
)
def test_a_price_that_cannot_be_counted_is_refused(connection: str, message: str, fix: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy({"acme.yaml": policy(connection)})
    (error,) = caught.value.errors
    assert message in error.message
    assert fix in error.fix
    assert error.line == 4


def test_a_limit_in_another_currency_than_the_books_is_refused() -> None:
    spend = "{meter: price, max: 5 EUR, per: day}"
    with pytest.raises(PolicyInvalid, match="calls on models cost USD"):
        parse_policy({"acme.yaml": policy("host: api.openai.com, price: {book: openai}", spend)})


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("prices: 1\nbook: ours\nmodel: {}\n", 3, "unknown key model; did you mean models?"),
        ("prices: 1\nbook: ours\nmodels:\n  m: {input: 1 USD, outpt: 2 USD}\n", 4, "did you mean output?"),
        ("prices: 1\nbook: ours\nmodels:\n  m: {input: 1}\n", 4, "not an amount of money"),
        ("prices: 1\nbook: openai\nmodels: {m: {input: 1 EUR}}\n", 2, "not in the currency of the book openai"),
        ("prices: 2\nbook: ours\nmodels: {m: {input: 1 EUR}}\n", 1, "not one of the known words"),
        ("prices: 1\nbook: ours\nmodels: {m: {input: 1 EUR}, n: {input: 1 USD}}\n", 1, "prices in several currencies"),
    ],
)
def test_a_book_that_is_wrong_says_where(text: str, line: int, said: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy({"acme.yaml": policy("host: api.openai.com"), "wrong.yaml": text.encode()})
    errors = [error for error in caught.value.errors if said in str(error)]
    assert [(error.file, error.line) for error in errors] == [("wrong.yaml", line)], caught.value


def test_two_files_of_one_book_are_one_too_many() -> None:
    with pytest.raises(PolicyInvalid, match="ours has a file already"):
        parse_policy({"acme.yaml": policy("host: api.openai.com"), "a.yaml": BOOK.encode(), "b.yaml": BOOK.encode()})
