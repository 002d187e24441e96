"""Which variable makes which client use the proxy and trust its certificates: one table.

Most variables *replace* a client's trust store, so they get the combined bundle: the public roots of certifi and our
authority behind them. Node, Bun and Deno *add* to theirs, so they get our authority alone. A client that obeys none of
these (Java, wget, hubspot, asana) takes the base URL and the key, or needs code.

Each variable is here because a client's own documentation or source reads it. Left out on purpose: `YARN_NO_PROXY`
(Yarn ends with an error for a setting it does not know), `JAVA_TOOL_OPTIONS` (no Java property carries a proxy's
password, and every start of a JVM prints it), and variables that switch verification off.
"""

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import certifi


class Value(StrEnum):
    """What a variable is set to."""

    PROXY = "proxy"
    """The proxy's URL with account and password."""
    COMBINED = "combined"
    """File: public roots and our authority."""
    AUTHORITY = "authority"
    """File: our authority alone."""
    EMPTY = "empty"
    """Set to nothing, so that nothing inherited or configured elsewhere makes an exception."""
    ONE = "one"
    """The text `1`."""
    BASE_URL = "base url"
    """Where `/CONNECTION/...` is called without a proxy."""
    KEY = "key"
    """The password (of `exeat env`: the credential) that stands for an API key at the base URL."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of the matrix."""

    name: str
    value: Value
    serves: str


MATRIX: tuple[Variable, ...] = (
    Variable("HTTPS_PROXY", Value.PROXY, "nearly every client, for https"),
    Variable("https_proxy", Value.PROXY, "curl, wget, git, Ruby: lower case first"),
    Variable("HTTP_PROXY", Value.PROXY, "requests, httpx, Go, Node, for http"),
    Variable("http_proxy", Value.PROXY, "curl reads only the lower case for http"),
    Variable("ALL_PROXY", Value.PROXY, "curl, httpx: every other scheme"),
    Variable("all_proxy", Value.PROXY, "curl, git"),
    Variable("NO_PROXY", Value.EMPTY, "an exception would be a way around the gate"),
    Variable("no_proxy", Value.EMPTY, "an exception would be a way around the gate"),
    Variable("NODE_USE_ENV_PROXY", Value.ONE, "Node 24 (22.21) and later read HTTPS_PROXY only with this"),
    Variable("GLOBAL_AGENT_HTTP_PROXY", Value.PROXY, "Node programs with global-agent, which reads no other"),
    Variable("GLOBAL_AGENT_NO_PROXY", Value.EMPTY, "its own exceptions"),
    Variable("npm_config_https_proxy", Value.PROXY, "npm, pnpm: before what an .npmrc says"),
    Variable("npm_config_proxy", Value.PROXY, "npm, pnpm, for http: before what an .npmrc says"),
    Variable("YARN_HTTPS_PROXY", Value.PROXY, "Yarn 2 and later, which read no HTTPS_PROXY"),
    Variable("YARN_HTTP_PROXY", Value.PROXY, "Yarn 2 and later, for http"),
    Variable("PERL_LWP_ENV_PROXY", Value.ONE, "Perl's LWP reads https_proxy only with this"),
    Variable(
        "SSL_CERT_FILE",
        Value.COMBINED,
        "OpenSSL: urllib, httpx, openai, anthropic, mcp, slack_sdk, gh, uv, Ruby, PHP, .NET and Go on Linux",
    ),
    Variable("REQUESTS_CA_BUNDLE", Value.COMBINED, "requests, google-auth, PyGithub, twilio, jira, pip"),
    Variable("CURL_CA_BUNDLE", Value.COMBINED, "curl, requests"),
    Variable("AWS_CA_BUNDLE", Value.COMBINED, "boto3, aws"),
    Variable("GIT_SSL_CAINFO", Value.COMBINED, "git"),
    Variable("GIT_PROXY_SSL_CAINFO", Value.COMBINED, "git, towards a TLS listener"),
    Variable("npm_config_cafile", Value.COMBINED, "npm, pnpm"),
    Variable("HTTPLIB2_CA_CERTS", Value.COMBINED, "httplib2: older Google clients (PySocks must be installed)"),
    Variable("PIP_CERT", Value.COMBINED, "pip"),
    Variable("CARGO_HTTP_CAINFO", Value.COMBINED, "cargo"),
    Variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", Value.COMBINED, "gRPC (HTTP/2 itself is refused, readably)"),
    Variable("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", Value.COMBINED, "gcloud"),
    Variable("NIX_SSL_CERT_FILE", Value.COMBINED, "programs built by Nix"),
    Variable("PERL_LWP_SSL_CA_FILE", Value.COMBINED, "Perl's LWP"),
    Variable("NODE_EXTRA_CA_CERTS", Value.AUTHORITY, "Node, Bun, Yarn: added to their own roots"),
    Variable("DENO_CERT", Value.AUTHORITY, "Deno: added to its own roots"),
    Variable(
        "EXEAT_BASE_URL", Value.BASE_URL, "clients that ignore proxies: append /CONNECTION, use as their base URL"
    ),
    Variable("EXEAT_API_KEY", Value.KEY, "the API key that goes with EXEAT_BASE_URL"),
)
"""Ordered as printed by `exeat env`. Names are unique."""

DROPPED: tuple[str, ...] = ("EXEAT_STATE", "SSL_CERT_DIR")
"""Taken out of an agent's environment: a way to the operators' side, and roots that we did not choose."""


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """Two PEM files a client can be pointed at. They hold certificates only, nothing secret."""

    combined: Path
    authority: Path


_MARK: str = "# Exeat's authority\n"


def foreign_trust_file(directory: Path) -> Path | None:
    """A file that `write_trust_files` would replace and did not write: somebody's own `ca.pem`. None: there is none."""
    files = TrustFiles(directory / "ca-bundle.pem", directory / "ca.pem")

    def text(path: Path) -> str | None:
        try:
            return path.read_text(encoding="ascii") if path.is_file() else None
        except (OSError, ValueError):
            return ""

    combined, authority = text(files.combined), text(files.authority)
    if combined is not None and (_MARK not in combined or authority is None):
        return files.combined
    if authority is not None and (combined is None or combined.partition(_MARK)[2] != authority):
        return files.authority
    return None


def write_trust_files(directory: Path, authority_pem: str) -> TrustFiles:
    """Both bundles are in the directory, replaced whole, readable by any user who can reach it."""
    roots = Path(certifi.where()).read_text(encoding="ascii")
    files = TrustFiles(directory / "ca-bundle.pem", directory / "ca.pem")
    for path, text in (
        (files.combined, f"{roots.rstrip()}\n\n{_MARK}{authority_pem}"),
        (files.authority, authority_pem),
    ):
        # Written beside and renamed: a client never reads half a bundle, and a planted link is replaced, not followed.
        handle, name = tempfile.mkstemp(dir=directory, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(text)
            os.fchmod(out.fileno(), 0o644)
        Path(name).replace(path)
    return files


@contextmanager
def private_trust_files(authority_pem: str) -> Iterator[TrustFiles]:
    """Both bundles exist in a directory that only this user can change, until the block is left.

    Others may read it: a program that runs as another user needs the bundles, and they hold nothing secret.
    """
    with tempfile.TemporaryDirectory(prefix="exeat-run-") as directory:
        Path(directory).chmod(0o755)
        yield write_trust_files(Path(directory), authority_pem)


def proxy_url(host: str, port: int, account: str, password: str, *, tls: bool = False) -> str:
    """The proxy's URL as clients read it: user and password percent-encoded (RFC 3986 section 3.2.1)."""
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if tls else "http"
    return f"{scheme}://{quote(account, safe='')}:{quote(password, safe='')}@{shown}:{port}"


def variables(proxy: str, trust: TrustFiles) -> dict[str, str]:
    """The whole matrix with its values, in the table's order. `proxy`: as `proxy_url` makes it."""
    url = urlsplit(proxy)
    values = {
        Value.BASE_URL: f"{url.scheme}://{url.netloc.rpartition('@')[2]}/to",
        Value.KEY: unquote(url.password or ""),
        Value.PROXY: proxy,
        Value.COMBINED: str(trust.combined),
        Value.AUTHORITY: str(trust.authority),
        Value.EMPTY: "",
        Value.ONE: "1",
    }
    return {row.name: values[row.value] for row in MATRIX}


def agent_environment(inherited: Mapping[str, str], set_by_us: Mapping[str, str]) -> dict[str, str]:
    """An agent's environment: what it inherits, without what we drop, and then the matrix over it."""
    kept = {name: value for name, value in inherited.items() if name not in DROPPED}
    return kept | dict(set_by_us)


def as_shell(assignments: Mapping[str, str]) -> str:
    """`export` lines for a POSIX shell; every value is quoted."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in assignments.items())


def as_dotenv(assignments: Mapping[str, str]) -> str:
    """`NAME=value` lines as container engines and dotenv readers take them. Raises `ValueError` for a line break."""
    if any("\n" in value or "\r" in value for value in assignments.values()):
        raise ValueError("a value with a line break has no place in such a file")
    return "".join(f"{name}={value}\n" for name, value in assignments.items())


SHOWN = {
    Value.PROXY: "the proxy's URL",
    Value.COMBINED: "the bundle",
    Value.AUTHORITY: "Exeat's authority",
    Value.EMPTY: "nothing",
    Value.ONE: "`1`",
    Value.BASE_URL: "the base URL",
    Value.KEY: "the run's password",
}
"""How a page says what a variable is set to."""


def as_markdown() -> str:
    """The matrix as a table for people."""
    rows = "".join(f"| `{row.name}` | {SHOWN[row.value]} | {row.serves} |\n" for row in MATRIX)
    return f"| variable | set to | for |\n|---|---|---|\n{rows}"
