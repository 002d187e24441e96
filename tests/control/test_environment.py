"""The matrix: complete, unique, and pointing at files that hold what they say."""

import ssl
import subprocess
from pathlib import Path

import certifi
import pytest

from control import environment
from control.environment import (
    MATRIX,
    Value,
    agent_environment,
    as_markdown,
    as_shell,
    proxy_url,
    variables,
    write_trust_files,
)

PEM = "-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n"


def test_every_variable_appears_once() -> None:
    names = [row.name for row in MATRIX]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"]
)
def test_proxies_are_set_in_both_cases(name: str) -> None:
    assert name in {row.name for row in MATRIX}


def test_node_and_deno_get_our_authority_alone_and_everyone_else_the_combined_bundle(tmp_path: Path) -> None:
    files = write_trust_files(tmp_path, PEM)
    values = variables("http://p", files)
    assert values["NODE_EXTRA_CA_CERTS"] == values["DENO_CERT"] == str(files.authority)
    assert values["NODE_USE_ENV_PROXY"] == "1"
    combined = {row.name for row in MATRIX if row.value is Value.COMBINED}
    assert {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO"} <= combined
    assert {values[name] for name in combined} == {str(files.combined)}
    assert files.authority.read_text() == PEM
    text = files.combined.read_text()
    assert text.endswith(PEM)
    assert text.startswith(Path(certifi.where()).read_text().rstrip())


def test_the_combined_bundle_loads_into_openssl_with_all_public_roots(tmp_path: Path) -> None:
    root = Path(certifi.where()).read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    files = write_trust_files(tmp_path, root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.combined)
    assert len(context.get_ca_certs()) >= 100


def test_trust_files_replace_a_planted_link_instead_of_following_it(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "ca.pem").symlink_to(victim)
    files = write_trust_files(tmp_path, PEM)
    assert victim.read_text() == "untouched"
    assert not files.authority.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ca-bundle.pem", "ca.pem", "victim"]


def test_an_inherited_exception_to_the_proxy_is_cleared_and_operators_ways_are_dropped(tmp_path: Path) -> None:
    files = write_trust_files(tmp_path, PEM)
    inherited = {"NO_PROXY": "*", "no_proxy": "api.test", "EXEAT_STATE": "/state", "SSL_CERT_DIR": "/x", "PATH": "/bin"}
    result = agent_environment(inherited, variables("http://p", files))
    assert result["NO_PROXY"] == result["no_proxy"] == ""
    assert result["PATH"] == "/bin"
    assert not set(environment.DROPPED) & set(result)


def test_a_password_survives_the_url_and_the_shell(tmp_path: Path) -> None:
    url = proxy_url("127.0.0.1", 8080, "support-agent", "p@ss:/w'ord")
    assert url == "http://support-agent:p%40ss%3A%2Fw%27ord@127.0.0.1:8080"
    assert proxy_url("::1", 1, "a", "b") == "http://a:b@[::1]:1"
    script = as_shell({"X": "it's $HOME `id`"}) + 'printf %s "$X"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout == "it's $HOME `id`"


def test_the_base_url_and_its_key_are_the_proxys_address_and_password(tmp_path: Path) -> None:
    values = variables(proxy_url("::1", 8080, "agent", "p@ss:/w"), write_trust_files(tmp_path, PEM))
    assert (values["EXEAT_BASE_URL"], values["EXEAT_API_KEY"]) == ("http://[::1]:8080/to", "p@ss:/w")


def test_the_page_about_clients_shows_the_whole_matrix() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/how-to/clients.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- matrix: made by control.environment.as_markdown -->\n")
    assert rest.partition("<!-- /matrix -->")[0].strip() == as_markdown().strip()
