"""Finding the one credential of a base-URL request, and reading its target."""

import base64

import pytest

from credentials.tokens import CredentialRejected
from proxy.base_url import BaseTarget, check_own_host, find_credential, parse_base_target
from proxy.http.errors import RequestRefused
from proxy.http.request import RequestHead, RequestParser

TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
OTHER = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJiIn0.c2lnbmF0dXJl"


def head(target: str, *fields: str) -> RequestHead:
    parser = RequestParser(connect=True)
    lines = [f"GET {target} HTTP/1.1", "Host: 127.0.0.1:8080", *fields]
    parser.feed("\r\n".join(lines).encode() + b"\r\n\r\n")
    assert parser.head is not None
    return parser.head


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("field", "header"),
    [
        (f"Authorization: Bearer {TOKEN}", b"authorization"),
        (f"Authorization: bearer {TOKEN}", b"authorization"),
        (f"Authorization: token {TOKEN}", b"authorization"),
        (f"Authorization: {basic(TOKEN, '')}", b"authorization"),
        (f"Authorization: {basic('AC123', TOKEN)}", b"authorization"),
        (f"X-Api-Key: {TOKEN}", b"x-api-key"),
        (f"api-key: {TOKEN}", b"api-key"),
        (f"x-goog-api-key: {TOKEN}", b"x-goog-api-key"),
        (f"PRIVATE-TOKEN: {TOKEN}", b"private-token"),
        (f"Proxy-Authorization: {basic('agent', TOKEN)}", b"proxy-authorization"),
    ],
)
def test_the_credential_is_found_where_sdks_put_their_key(field: str, header: bytes) -> None:
    found = find_credential(head("/to/saas/v1?a=1", field))
    assert (found.token, found.header, found.target) == (TOKEN, header, b"/to/saas/v1?a=1")


@pytest.mark.parametrize(
    ("target", "left"),
    [
        (f"/to/saas/v1?key={TOKEN}", b"/to/saas/v1"),
        (f"/to/saas/v1?a=1&key={TOKEN}&b=2", b"/to/saas/v1?a=1&b=2"),
        (f"/to/saas/v1?access_token={TOKEN}&key=ordinary", b"/to/saas/v1?key=ordinary"),
    ],
)
def test_a_credential_in_the_query_is_taken_out_and_nothing_else_is_touched(target: str, left: bytes) -> None:
    found = find_credential(head(target))
    assert (found.token, found.header, found.target) == (TOKEN, None, left)


@pytest.mark.parametrize(
    ("target", "fields", "code"),
    [
        ("/to/saas/v1", (), "credential_missing"),
        ("/to/saas/v1?key=ordinary", (), "credential_missing"),
        ("/to/saas/v1", ("Authorization: Bearer sk_live_1",), "credential_invalid"),
        ("/to/saas/v1", ("X-Api-Key: sk_live_1",), "credential_invalid"),
        ("/to/saas/v1", ("Authorization: Basic !!!",), "credential_invalid"),
        ("/to/saas/v1", (f"Authorization: Bearer {TOKEN}", f"X-Api-Key: {TOKEN}"), "credential_invalid"),
        ("/to/saas/v1", (f"Authorization: Bearer {TOKEN}", f"X-Api-Key: {OTHER}"), "credential_invalid"),
        (f"/to/saas/v1?key={OTHER}", (f"Authorization: Bearer {TOKEN}",), "credential_invalid"),
        (f"/to/saas/v1?key={TOKEN}&key={TOKEN}", (), "credential_invalid"),
        (f"/to/saas/v1?key={TOKEN}&key=AIzaAnother", (), "credential_invalid"),
        (f"/to/saas/v1?api_key=another&api_key={TOKEN}", (), "credential_invalid"),
        (f"/to/saas/v1?key={TOKEN}&KE%59[]=AIzaAnother", (), "credential_invalid"),
        (f"/to/saas/v1?key={TOKEN}&a=1;key=AIzaAnother", (), "credential_invalid"),
        ("/to/saas/v1", ("X-Api-Key: eyJ" + "a" * 5000 + ".b.c",), "credential_invalid"),
    ],
)
def test_no_credential_and_two_of_them(target: str, fields: tuple[str, ...], code: str) -> None:
    with pytest.raises(CredentialRejected) as refused:
        find_credential(head(target, *fields))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("/to/saas/v1", f"X-Custom: {TOKEN}"),
        ("/to/saas/v1", f"Cookie: session={TOKEN}"),
        ("/to/saas/v1", "Cookie: session=" + "".join(f"%{ord(c):02x}" for c in TOKEN)),
        ("/to/saas/v1", f"Referer: http://127.0.0.1/?key={TOKEN.replace('.', '%2E')}"),
        ("/to/saas/v1", f"X-Authorization: {basic('agent', TOKEN)}"),
        (f"/to/saas/v1?q={TOKEN}", "Accept: */*"),
        (f"/to/saas/{TOKEN}", "Accept: */*"),
        ("/to/saas/v1?q=" + "".join(f"%{ord(c):02X}" for c in TOKEN), "Accept: */*"),
    ],
)
def test_a_copy_of_the_credential_that_would_travel_on_is_refused(target: str, field: str) -> None:
    with pytest.raises(CredentialRejected) as refused:
        find_credential(head(target, f"Authorization: Bearer {TOKEN}", field))
    assert refused.value.code == "credential_invalid"


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        (b"/to/saas/v1/x?a=b", BaseTarget("saas", "/v1/x", "a=b")),
        (b"/to/saas/", BaseTarget("saas", "/", "")),
        (b"/to/saas", BaseTarget("saas", "/", "")),
        (b"/to/saas?x", BaseTarget("saas", "/", "x")),
        (b"/to/saas/%7Euser", BaseTarget("saas", "/~user", "")),
    ],
)
def test_targets(raw: bytes, parsed: BaseTarget) -> None:
    assert parse_base_target(raw) == parsed


@pytest.mark.parametrize(
    "raw",
    [
        b"/", b"/to", b"/to/", b"/to//v1", b"/TO/saas/v1", b"/to/SAAS/v1", b"/to/%73aas/v1", b"/to/../saas/v1",
        b"/to/saas//v1", b"/to/saas/../other/v1", b"/to/saas/%2e%2e/other", b"/to/saas/..", b"/to/saas/a%2fb",
        b"/to/saas/v1?_method=DELETE", b"/to/saas;x/v1", b"//to/saas/v1", b"/to/saas@evil.example/v1",
        b"/to/saas:443/v1", b"/v1/to/saas",
    ],
)  # fmt: skip
def test_a_target_with_two_readings_has_none(raw: bytes) -> None:
    with pytest.raises(RequestRefused):
        parse_base_target(raw)


@pytest.mark.parametrize("host", [b"127.0.0.1:8080", b"[::1]:8080", b"localhost", b"localhost:1", b"gate.acme.example"])
def test_our_own_hosts(host: bytes) -> None:
    assert check_own_host(host, ("gate.acme.example",)) == host


@pytest.mark.parametrize(
    "host", [b"api.stripe.com", b"localhost.evil.example", b"2130706433", b"", b"a@localhost", None]
)
def test_another_host_is_not_ours(host: bytes | None) -> None:
    """DNS rebinding: a page of evil.example whose name leads to 127.0.0.1 says so in its Host."""
    with pytest.raises(RequestRefused):
        check_own_host(host, ("gate.acme.example",))
