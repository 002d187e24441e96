"""Who a message goes to is read in one way, or refused."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.content.mail import MAX_FIELDS, MAX_HEADER, MAX_MESSAGE, read_address, read_recipients
from rules.content.refused import ContentRefused


def _raw(message: str | bytes, *, padded: bool = True) -> str:
    data = message.encode() if isinstance(message, str) else message
    text = base64.urlsafe_b64encode(data).decode()
    return text if padded else text.rstrip("=")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ana@acme.example", "ana@acme.example"),
        (" Ana.B+x@ACME.Example ", "ana.b+x@acme.example"),
        ("<ana@acme.example>", "ana@acme.example"),
        ("Ana B. <ana@acme.example>", "ana@acme.example"),
        ('"B, Ana" <ana@acme.example>', "ana@acme.example"),
        ("José <ana@xn--bcher-kva.example>", "ana@xn--bcher-kva.example"),
    ],
)
def test_addresses_that_are_read(text: str, address: str) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ana",
        "@acme.example",
        "ana@acme",
        "ana@@acme.example",
        "ana@evil.example@acme.example",
        "ana@acme.example, bob@acme.example",
        "ana@acme.example <bob@evil.example>",
        '"ana@acme.example" <bob@evil.example>',
        "<ana@acme.example> <bob@evil.example>",
        "<ana@acme.example> bob@evil.example",
        '"ana b"@acme.example',
        "ana(x)@acme.example",
        "ana@acme.example (Ana)",
        "team: ana@acme.example;",
        "<@relay.example:ana@acme.example>",
        "ana%evil.example@acme.example",
        "evil.example!ana@acme.example",
        "ana@[127.0.0.1]",
        "ana@127.0.0.1",
        "ana@bücher.example",
        "ána@acme.example",
        "ana@acme.example.",
        "ana@-acme.example",
        ".ana@acme.example",
        "ana..b@acme.example",
        "ana@acme.example\n",
        "ana@acme.example\r\nBcc: bob@evil.example",
        "Ana\x00 <ana@acme.example>",
        "Ana\x85 <ana@acme.example>",
        "=?utf-8?q?bob=40evil.example=3e?=@acme.example",
        "=?utf-8?q?bob?= <ana@acme.example>",
        "bob＠evil.example <ana@acme.example>",
        "a" * 65 + "@acme.example",
    ],
)
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(ContentRefused):
        read_address(text)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_recipients_of_all_fields_in_order(end: str, padded: bool) -> None:
    lines = [
        "From: me@acme.example",
        "To: Ana <Ana@acme.example>,",
        ' "B, Ob" <bob@acme.example>',
        "Subject: To: x@evil.example",
        "cc: c@acme.example",
        "BCC: d@acme.example",
        "Resent-To: e@acme.example",
        "",
        "To: body@evil.example",
    ]
    assert read_recipients(_raw(end.join(lines), padded=padded)) == tuple(
        f"{name}@acme.example" for name in ("ana", "bob", "c", "d", "e")
    )


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Subject: x\n\nTo: a@b.example",
        "\nTo: a@b.example",
        "To: a@b.example\nTo: c@d.example\n\n",
        "To: a@b.example\nBcc:\n\n",
        "To: a@b.example,,c@d.example\n\n",
        "To: a@b.example,\n\n",
        "To: team: a@b.example;\n\n",
        "To : a@b.example\n\n",
        "To: a@b.example\n \n\tBcc: c@d.example\n\n",
        " folded\nTo: a@b.example\n\n",
        "To: a@b.example\rBcc: c@d.example\n\n",
        "To: a@b.example\r\nSubject: x\nBcc: c@d.example\r\n\r\n",
        "To: a@b.example\r\nSubject: x\n\nBcc: c@d.example\r\n\r\n",
        "To: é@b.example\n\n",
        "To: a@b.example\nX: \0\n\n",
        "To: a@b.example\nX: " + "x" * 998 + "\n\n",
        'To: a@b.example"\\", "c@d.example\n\n',
        "no field\nTo: a@b.example\n\n",
    ],
)
def test_messages_that_are_refused(message: str) -> None:
    with pytest.raises(ContentRefused):
        read_recipients(_raw(message))


@pytest.mark.parametrize("raw", ["A", "VG8+", "VG8/", "VG86IGFAYi5leGFtcGxlCgo===", "VG86\n", "VG86 IA==", "VH=", "é"])
def test_what_is_no_base64url_is_refused(raw: str) -> None:
    with pytest.raises(ContentRefused):
        read_recipients(raw)


ADVERSARIAL = {
    "commas": "To: " + ",\n " * (MAX_MESSAGE // 3 - 9),
    "recipients": "To: a@b.example" + ",\n a@b.example" * 60_000,
    "folded": "To: a@b.example\n" + " a\n" * 340_000,
    "comments": "To: " + "(((((((((((((((\n " * 60_000,
    "quotes": "To: " + '"" \n ' * 200_000 + "<a@b.example>",
    "spaces": "To: " + ("x" + " " * 990 + "\n ") * 1050,
    "too large": "To: a@b.example\n\n" + "x" * MAX_MESSAGE,
}


@pytest.mark.parametrize("message", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_a_megabyte_made_to_cost_is_refused(message: str) -> None:
    with pytest.raises(ContentRefused):
        read_recipients(_raw(message))


@given(st.text(max_size=40) | st.text('ab@.<>,"\\ ():;=?[]\t\r\n', max_size=40))
def test_any_text_is_addresses_or_a_refusal(text: str) -> None:
    for read in (read_address, read_recipients, lambda text: read_recipients(_raw(f"To: {text}\n\n"))):
        try:
            found = read(text)
        except ContentRefused:
            continue
        assert "@" in (found if isinstance(found, str) else found[0])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_header_has_a_size_that_is_read_and_a_body_has_another(end: str) -> None:
    """The empty line that ends it has to stand within the bound: behind it, nothing is looked at."""
    to = f"To: ana@acme.example{end}"
    line = f"X: {'y' * 900}{end}"
    filled = to + line * ((MAX_HEADER - len(to)) // len(line) - 1)
    rest = f"X: {'y' * (MAX_HEADER - len(filled) - len(end) * 2 - 3 - 900)}{end}X: {'y' * (900 - 3 - len(end))}{end}"
    header = filled + rest
    assert len(header + end) == MAX_HEADER
    assert read_recipients(_raw(header + end + "x" * 900_000)) == ("ana@acme.example",)
    for larger in (header + "X" + end, to + line * 1100):
        message = larger.replace(f"X{end}", f"X:{end}") + end + "Bcc: eve@evil.example"
        with pytest.raises(ContentRefused, match="too large"):
            read_recipients(_raw(message))


def test_a_header_has_a_number_of_fields_that_are_read() -> None:
    to = "To: ana@acme.example\n"
    assert read_recipients(_raw(to + "X:\n" * (MAX_FIELDS - 1))) == ("ana@acme.example",)
    with pytest.raises(ContentRefused, match="fields"):
        read_recipients(_raw(to + "X:\n" * MAX_FIELDS))
