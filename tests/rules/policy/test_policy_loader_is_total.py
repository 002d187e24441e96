"""Whatever bytes a file holds: a policy or `PolicyInvalid`, and never anything else."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy
from rules.policy.source import PolicyInvalid

VALID = (Path(__file__).parent.parent / "vectors" / "acme.policy.yaml").read_bytes()


def load(raw: bytes) -> None:
    try:
        source = parse_policy({"a.yaml": raw})
    except PolicyInvalid as error:
        errors = error.errors
    else:
        policy = compile_policy(source)
        assert PolicySet.from_bundle(policy.bundle) == policy
        return
    assert errors
    for found in errors:
        assert found.file == "a.yaml"
        assert found.line >= 1
        assert found.column >= 1
        assert found.message
        assert found.fix
        assert len(str(found).splitlines()) == 1, "an error is one line, whatever the file holds"


@given(st.binary(max_size=200))
def test_arbitrary_bytes(raw: bytes) -> None:
    load(raw)


@given(st.text(alphabet="abxe: \n-[]{},&*!|>%@`'\"#?\\\t~0\x85\u2028U", max_size=60))
def test_text_of_yaml_characters(text: str) -> None:
    load(text.encode())


@given(st.integers(0, len(VALID)), st.integers(0, 12), st.binary(max_size=12) | st.text(max_size=6).map(str.encode))
def test_a_valid_policy_with_something_cut_out_and_put_in(start: int, length: int, inserted: bytes) -> None:
    load(VALID[:start] + inserted + VALID[start + length :])


scalars = st.sampled_from(
    ["1", "true", "", "~", "x", "1.5", "5m", "5 USD", '"*"', "/**", "GET", "https", "-1", '"\\0"', "{}", "[]"]
)
KEYS = [
    *(
        "exeat",
        "tenant",
        "timezone",
        "roles",
        "credentials",
        "connections",
        "accounts",
        "host",
        "scheme",
        "port",
        "secret",
    ),
    *(
        "present",
        "price",
        "dial",
        "networks",
        "ca",
        "owners",
        "stage",
        "limits",
        "rules",
        "rate",
        "spend",
        "concurrency",
    ),
    *("id", "allow", "deny", "connection", "methods", "path", "meter", "max", "per", "burst", "ttl", "x", '"\\e[31m"'),
]
trees = st.recursive(
    scalars,
    lambda node: st.one_of(
        st.dictionaries(st.sampled_from(KEYS), node, max_size=4).map(
            lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}"
        ),
        st.lists(node, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), trees, max_size=6))
def test_any_shape_under_any_known_key(sections: dict[str, str]) -> None:
    written = {"exeat": "1", "tenant": "acme", **sections}
    load("".join(f"{key}: {value}\n" for key, value in written.items()).encode())
