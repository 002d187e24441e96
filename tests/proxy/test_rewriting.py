"""References in responses at the base-URL door: those that lead around the door lead back to it."""

import pytest

from proxy.rewriting import MAX_REFERENCES, Rewriter

CONNECTIONS = {
    ("https", "api.saas.test", 443): "saas",
    ("https", "files.saas.test", 443): "files",
    ("http", "old.test", 8080): "old",
}
DOOR = "http://127.0.0.1:8080"


def rewrite(name: bytes, value: bytes) -> bytes | None:
    url = "https://api.saas.test/v1/things/7"
    return Rewriter(DOOR, "saas", url, lambda *where: CONNECTIONS.get(where))(name, value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"https://api.saas.test/v1/things/8?a=b#c", b"http://127.0.0.1:8080/to/saas/v1/things/8?a=b#c"),
        (b"https://api.saas.test:443/x", b"http://127.0.0.1:8080/to/saas/x"),
        (b"HTTPS://API.SAAS.TEST/x", b"http://127.0.0.1:8080/to/saas/x"),
        (b"https://api.saas.test", b"http://127.0.0.1:8080/to/saas/"),
        (b"https://api.saas.test?x=1", b"http://127.0.0.1:8080/to/saas/?x=1"),
        (b"/v2", b"http://127.0.0.1:8080/to/saas/v2"),
        (b"8", b"http://127.0.0.1:8080/to/saas/v1/things/8"),
        (b"../../../../x", b"http://127.0.0.1:8080/to/saas/x"),
        (b"?page=2", b"http://127.0.0.1:8080/to/saas/v1/things/7?page=2"),
        (b"//api.saas.test/x", b"http://127.0.0.1:8080/to/saas/x"),
        (b"https://files.saas.test/f", b"http://127.0.0.1:8080/to/files/f"),
        (b"http://old.test:8080/f", b"http://127.0.0.1:8080/to/old/f"),
        # what an agent would resolve stays below the connection's own path
        (b"https://api.saas.test/../../to/files/f", b"http://127.0.0.1:8080/to/saas/to/files/f"),
        (b"https://api.saas.test/a/%2E%2e/%2e./b/.?x=/../#/..", b"http://127.0.0.1:8080/to/saas/b/?x=/../#/.."),
        (b"/a/..\\..\\..\\to\\files", b"http://127.0.0.1:8080/to/saas/to/files"),
        (b"https://api.saas.test/..", b"http://127.0.0.1:8080/to/saas/"),
        # elsewhere stays elsewhere, and says so in full
        (b"https://elsewhere.test/x", b"https://elsewhere.test/x"),
        (b"//elsewhere.test/x", b"https://elsewhere.test/x"),
        (b"http://api.saas.test/x", b"http://api.saas.test/x"),
        (b"https://api.saas.test:8443/x", b"https://api.saas.test:8443/x"),
        (b"https://user@api.saas.test/x", b"https://user@api.saas.test/x"),
        (b"mailto:a@b", b"mailto:a@b"),
        (b"https://[::bad/x", b"https://[::bad/x"),
        (b"https://api.saas.test:99999/x", b"https://api.saas.test:99999/x"),
        (b"/caf\xc3\xa9", b"http://127.0.0.1:8080/to/saas/caf\xc3\xa9"),
    ],
)
def test_location(value: bytes, expected: bytes) -> None:
    assert rewrite(b"location", value) == expected
    assert rewrite(b"content-location", value) == expected
    assert rewrite(b"x-location", value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            b'<https://api.saas.test/v1/things?page=2>; rel="next", '
            b'<https://api.saas.test/v1/things?page=9>; rel="last"',
            b'<http://127.0.0.1:8080/to/saas/v1/things?page=2>; rel="next", '
            b'<http://127.0.0.1:8080/to/saas/v1/things?page=9>; rel="last"',
        ),
        (
            b'</a>; title="see <https://api.saas.test/b>"',
            b'<http://127.0.0.1:8080/to/saas/a>; title="see <https://api.saas.test/b>"',
        ),
        (b'</a>; title="say \\"</b>\\""', b'<http://127.0.0.1:8080/to/saas/a>; title="say \\"</b>\\""'),
        (b"<unterminated", b"<unterminated"),
        (b'"', b'"'),
        (b"", b""),
    ],
)
def test_link(value: bytes, expected: bytes) -> None:
    assert rewrite(b"link", value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"s=1; Path=/; HttpOnly", b"s=1; HttpOnly; Path=/to/saas"),
        (b"s=1; Domain=.saas.test; Path=/v1", b"s=1; Path=/to/saas/v1"),
        (b"s=1; path=/v1; PATH=/", b"s=1; Path=/to/saas"),
        (b"s=1", b"s=1; Path=/to/saas/v1/things"),
        (b"s=1; Path=evil", b"s=1; Path=/to/saas/v1/things"),
    ],
)
def test_a_cookie_stays_with_its_connection(value: bytes, expected: bytes) -> None:
    """At this door all services, of all tenants, share one host."""
    assert rewrite(b"set-cookie", value) == expected


def test_what_speaks_about_the_whole_host_is_dropped() -> None:
    assert rewrite(b"strict-transport-security", b"max-age=1") is None
    assert rewrite(b"clear-site-data", b'"*"') is None
    assert rewrite(b"set-cookie2", b"s=1; Version=1; Path=/") is None


def test_an_origin_cannot_have_references_rewritten_without_end() -> None:
    """Ten thousand of them fit into a head, and would hold the loop for half a second."""
    rewriter = Rewriter(DOOR, "saas", "https://api.saas.test/v1", lambda *where: CONNECTIONS.get(where))
    most = b", ".join(b"</%d>" % number for number in range(MAX_REFERENCES))
    assert (rewriter(b"link", most) or b"").count(b"/to/saas/") == MAX_REFERENCES
    assert rewriter(b"link", b"</one-more>") is None
    assert rewriter(b"location", b"/x") == b"http://127.0.0.1:8080/to/saas/x"
