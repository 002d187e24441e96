"""Every program of the pages about clients runs as it is printed, under `exeat run`, by an account without limits.

One process for a page's programs, in their order: an SDK is imported once. What a page says of a refusal its own
programs assert.
"""

import re
from pathlib import Path

import pytest

from tests.clients.sdks.conftest import PYTHON, TELL, Run, Sdks
from tests.control.test_relay_command import sidecar

PAGES = Path(__file__).resolve().parents[3] / "docs/how-to/clients"
EACH = f"""{TELL}
for number, program in enumerate(sys.argv[1:]):
    exec(compile(program, f"program {{number}}", "exec"), {{"__name__": "__main__"}})
    tell(ran=number)
"""


def programs(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


CALLS: tuple[tuple[str, dict[str, int] | None], ...] = (
    ("python-http", {"saas": 8 + 4}),
    ("openai-anthropic", {"openai": 2 + 1, "anthropic": 2 + 1}),
    ("stripe-slack-github-twilio", dict.fromkeys(("stripe", "slack", "github", "twilio"), 2 + 1)),
    ("google", {"google": 2 + 1}),
    ("aws", {"s3": 2 + 1}),
    ("mcp", None),
)
"""Page: how many calls its programs make on each connection."""


@pytest.mark.parametrize(("page", "calls"), CALLS, ids=[page for page, _ in CALLS])
def test_every_python_program_of_a_page_runs(sdks: Sdks, page: str, calls: dict[str, int] | None) -> None:
    """Each makes the calls that it shows, and the last program of a page makes them at the base URL."""
    found = programs(PAGES / f"{page}.md", "python")
    run = sdks.command(*PYTHON, EACH, *found, account="reader")
    assert len(found) >= 2
    ran_as_told(run, len(found), calls)


def test_a_pages_programs_run_beside_a_relay_as_well(sdks: Sdks, tmp_path: Path) -> None:
    """With what the relay's file says, which is what `exeat run` sets."""
    page = "python-http"
    found = programs(PAGES / f"{page}.md", "python")
    with sidecar(sdks.product, tmp_path, "--as", "reader") as relay:
        ran_as_told(sdks.beside(relay, *PYTHON, EACH, *found), len(found), dict(CALLS)[page])


def ran_as_told(run: Run, programs: int, calls: dict[str, int] | None) -> None:
    assert [told["ran"] for told in run.told] == list(range(programs))
    verdicts = run.verdicts()
    if calls is not None:
        assert {name: [at for at, _ in verdicts].count(name) for name in calls} == calls
        assert sum(calls.values()) == len(verdicts)
    assert {verdict for _, verdict in verdicts} == {"allow", "not_allowed"}


@pytest.mark.wants("curl")
@pytest.mark.wants("git")
def test_every_command_of_the_page_about_git_and_curl_runs(sdks: Sdks, tmp_path: Path) -> None:
    found = programs(PAGES / "git-curl.md", "sh")
    quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    script = "\n".join((f'cd "{tmp_path}" && echo "key $EXEAT_API_KEY" >&2 && set -ex', *found))
    run = sdks.command("sh", "-c", script, account="reader", env=quiet)
    assert run.verdicts() == [
        ("saas", "allow"), *[("git", "allow")] * 3, ("saas", "not_allowed"), ("git", "not_allowed"),
        ("saas", "allow"), *[("git", "allow")] * 3,
    ]  # fmt: skip
    assert (tmp_path / "tools" / "README").read_bytes() == (tmp_path / "again" / "README").read_bytes()


def test_no_page_has_a_program_that_nothing_runs() -> None:
    written = {page.stem for page in PAGES.glob("*.md") if programs(page, "python") or programs(page, "sh")}
    assert written == {
        "python-http", "openai-anthropic", "stripe-slack-github-twilio", "google", "aws", "mcp", "git-curl",
    }  # fmt: skip
