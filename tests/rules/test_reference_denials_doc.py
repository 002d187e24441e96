"""docs/reference/denials.md lists every code as it is; the table of codes is complete and sane."""

from pathlib import Path

from rules.codes import TABLE, Category, Code

DOC = (Path(__file__).parents[2] / "docs" / "reference" / "denials.md").read_text()


def rows() -> list[str]:
    """The table as the page must have it."""
    head = ["| code | status | category | meaning | what to do |", "|---|---|---|---|---|"]
    return head + [
        f"| `{code}` | {e.status} | {e.category} | {e.title} | {e.how_to_proceed} |" for code, e in TABLE.items()
    ]


def test_the_page_has_the_table_of_codes_as_it_is() -> None:
    expected = "\n".join(rows())
    assert expected in DOC, f"docs/reference/denials.md must contain:\n{expected}"


def test_the_page_explains_every_category() -> None:
    assert all(f"| `{category}` |" in DOC for category in Category)


def test_every_code_has_one_entry() -> None:
    assert list(TABLE) == list(Code)


def test_no_refusal_looks_like_success_and_only_transient_ones_ask_for_a_retry() -> None:
    for code, entry in TABLE.items():
        assert 400 <= entry.status <= 599, code
        if entry.status in (408, 409, 429):
            assert entry.category is Category.TRANSIENT, "SDKs retry these statuses by themselves"
