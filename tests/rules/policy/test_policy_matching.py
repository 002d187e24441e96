"""The trie against a matcher that just looks at every rule, and templates against their definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.policy.invalid import ValueInvalid
from rules.policy.matcher import ANY, Matcher, Rule
from rules.policy.templates import PARAMETER, Template, normal_segments, parse_template

SEGMENTS = ["a", "b", "c"]
METHODS = ["GET", "POST", "DELETE"]
CONNECTIONS = ["x", "y"]


@st.composite
def templates(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.sampled_from([*SEGMENTS, "{}"]), max_size=4))
    named = [f"{{p{i}}}" if part == "{}" else part for i, part in enumerate(parts)]
    return (
        "/" + "/".join([*named, *draw(st.sampled_from([[], ["**"], [""]]))])
        if named
        else draw(st.sampled_from(["/", "/**"]))
    )


@st.composite
def rule_lists(draw: st.DrawFn) -> tuple[Rule, ...]:
    count = draw(st.integers(0, 12))
    return tuple(
        Rule(
            f"r{position}",
            draw(st.sampled_from([*CONNECTIONS, ANY])),
            draw(st.none() | st.frozensets(st.sampled_from(METHODS), min_size=1)),
            parse_template(draw(templates())),
            position,
        )
        for position in range(count)
    )


paths = st.lists(st.sampled_from(SEGMENTS), max_size=5).flatmap(
    lambda parts: st.sampled_from(["/" + "/".join(parts), "/" + "/".join(parts) + "/" if parts else "/"])
)


def naive_template_match(template: str, path: str) -> bool:
    """The documented rule, on text, without any of the code under test."""
    rest = template.endswith("/**")
    wanted = (template[:-3] if rest else template).split("/")[1:]
    given_ = path.split("/")[1:]
    if rest:
        if len(given_) < len(wanted):
            return False
        given_ = given_[: len(wanted)]
    if len(wanted) != len(given_):
        return False
    return all(w == g or (w.startswith("{") and g != "") for w, g in zip(wanted, given_, strict=True))


def naive(rules: tuple[Rule, ...], connection: str, method: str, path: str) -> list[Rule]:
    return [
        rule
        for rule in rules
        if rule.connection in (connection, "*")
        and (rule.methods is None or method in rule.methods)
        and naive_template_match(rule.template.text, path)
    ]


@given(rule_lists(), st.sampled_from([*CONNECTIONS, "z"]), st.sampled_from(METHODS), paths)
def test_the_trie_matches_what_looking_at_every_rule_matches(
    rules: tuple[Rule, ...], connection: str, method: str, path: str
) -> None:
    segments = normal_segments(path)
    assert segments is not None
    expected = naive(rules, connection, method, path)
    found = Matcher(rules).matching(connection, method, segments, at_most=100)
    assert sorted(r.position for r in found) == sorted(r.position for r in expected)
    assert [r.rank for r in found] == sorted(r.rank for r in expected)
    first = Matcher(rules).matching(connection, method, segments, at_most=1)
    assert first == found[:1], "the deciding rule does not depend on how many are asked for"


@given(rule_lists(), st.randoms(use_true_random=False), st.sampled_from(METHODS), paths)
def test_the_deciding_rule_does_not_depend_on_the_order_of_rules_of_different_rank(
    rules: tuple[Rule, ...], random: object, method: str, path: str
) -> None:
    segments = normal_segments(path)
    assert segments is not None
    shuffled = list(rules)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Matcher(rules).matching("x", method, segments) == Matcher(tuple(shuffled)).matching("x", method, segments)


@given(rule_lists(), rule_lists(), st.sampled_from(METHODS), paths, st.sampled_from(CONNECTIONS))
def test_what_is_called_covered_is_covered(
    rules: tuple[Rule, ...], others: tuple[Rule, ...], method: str, path: str, connection: str
) -> None:
    over = Matcher(rules)
    for rule in others:
        if over.covering(rule) is not None and naive((rule,), connection, method, path):
            assert naive(rules, connection, method, path)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("/a/b", "/a/{x}"),
        ("/a/{x}", "/a/**"),
        ("/a", "/a/**"),
        ("/a/{x}", "/{x}/b"),
        ("/a/b/**", "/a/{x}/**"),
        ("/a/{x}/**", "/a/**"),
        ("/a/**", "/**"),
        ("/", "/**"),
    ],
)
def test_of_two_templates_the_more_specific_decides(narrow: str, wide: str) -> None:
    assert parse_template(narrow).rank < parse_template(wide).rank


def test_between_equal_paths_the_named_connection_then_the_named_method_then_the_first_decides() -> None:
    template = parse_template("/a")
    rules = (
        Rule("any", ANY, frozenset({"GET"}), template, 0),
        Rule("all", "x", None, template, 1),
        Rule("first", "x", frozenset({"GET"}), template, 2),
        Rule("second", "x", frozenset({"GET", "POST"}), template, 3),
    )
    found = Matcher(rules).matching("x", "GET", ("a",))
    assert [rule.id for rule in found] == ["first", "second", "all", "any"]


def test_a_lookup_visits_no_more_nodes_when_there_are_more_rules() -> None:
    """Flat in the number of rules: counted, not timed."""

    def visits(count: int) -> int:
        rules = tuple(
            Rule(f"r{i}", f"c{i % 50}", frozenset({"GET"}), parse_template(f"/v1/t{i}/{{id}}"), i) for i in range(count)
        )
        matcher = Matcher(rules)
        looked_up = 0

        class Counting(dict):  # type: ignore[type-arg]
            def get(self, key: object, default: object = None) -> object:
                nonlocal looked_up
                looked_up += 1
                return super().get(key, default)

        for trie in matcher._tries.values():
            stack = [trie]
            while stack:
                node = stack.pop()
                stack.extend(node.literals.values())
                if node.parameter is not None:
                    stack.append(node.parameter)
                node.literals = Counting(node.literals)
        assert len(matcher.matching("c7", "GET", ("v1", "t7", "x"))) == 1
        return looked_up

    assert visits(100) == visits(5000)


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/", ("",)),
        ("/a/b", ("a", "b")),
        ("/a/", ("a", "")),
        ("/caf%c3%A9", ("caf\u00c3\u00a9",)),
        ("/%61", ("a",)),
        ("/%2561", ("%61",)),
        ("/a;b=c", ("a;b=c",)),
        ("/.well-known/x", (".well-known", "x")),
        ("/...", ("...",)),
    ],
)
def test_a_path_is_decoded_once(path: str, segments: tuple[str, ...]) -> None:
    assert normal_segments(path) == segments


NOT_NORMAL = r"""
    * a // /a//b /. /.. /a/../b /%2e /.%2E/a /a%2Fb /a%5cb /a\b /a%00 /a%0d /a%7f /a% /a%g1 /é /a?b /a#b
""".split()  # noqa: SIM905 - a list of these is hard to read


@pytest.mark.parametrize("path", ["", "/a b", "/a\n", "\n/a", "/a/\n", *NOT_NORMAL])
def test_a_path_that_has_two_readings_has_no_normal_form(path: str) -> None:
    assert normal_segments(path) is None


@given(st.text(alphabet="/.%2eEfF5cCab;\\~\n", max_size=12).map(lambda text: "/" + text))
def test_the_short_way_for_plain_paths_agrees_with_the_long_way(path: str) -> None:
    # `%41` decodes to `A`, so the long way is taken and must see the same segments after it.
    short = normal_segments(path)
    long = normal_segments("/%41" + path)
    assert long == (None if short is None else ("A", *short))


@given(st.text(max_size=30))
def test_a_template_is_parsed_or_refused_and_nothing_else(text: str) -> None:
    try:
        template = parse_template(text)
    except ValueInvalid as error:
        refusal = (error.message, error.fix)
    else:
        assert isinstance(template, Template)
        return
    assert all(refusal)


def test_a_template_is_compared_in_decoded_form() -> None:
    assert parse_template("/caf%c3%a9/{id}/**").segments == ("caf\u00c3\u00a9", PARAMETER)
