"""A form says the same, whichever of its two types it is sent as."""

import pytest

from rules.content.content import read_content
from rules.content.refused import ContentRefused

MULTIPART = (b"multipart/form-data; boundary=b",)


def multipart(**parts: str) -> bytes:
    pieces = (f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in parts.items())
    return "".join([*pieces, "--b--\r\n"]).encode()


def test_brackets_nest_in_a_multipart_form_as_in_any_other() -> None:
    fields = {"metadata[admin]": "1", "metadata[a][b]": "2", "plain": "3"}
    urlencoded = "&".join(f"{name}={text}" for name, text in fields.items()).encode()
    found = read_content(MULTIPART, multipart(**fields))
    assert found.value == {"metadata": {"admin": "1", "a": {"b": "2"}}, "plain": "3"}
    assert found == read_content((b"application/x-www-form-urlencoded",), urlencoded)


def test_a_file_stands_where_its_name_says() -> None:
    body = multipart(x="1").replace(b'name="x"', b'name="files[]"; filename="a.csv"')
    assert read_content(MULTIPART, body).value == {"files": [{"filename": "a.csv", "type": "", "size": 1}]}


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"a": "1", "a[b]": "2"}, "brackets"),
        ({"a[": "1"}, "unbalanced"),
        ({"account_type": "user", "account.type": "admin"}, "differ"),
    ],
)
def test_names_that_two_servers_read_differently_are_refused(parts: dict[str, str], why: str) -> None:
    with pytest.raises(ContentRefused, match=why):
        read_content(MULTIPART, multipart(**parts))


def test_nothing_is_put_into_what_a_file_is_told_as() -> None:
    body = multipart(x="1", y="2").replace(b'name="x"', b'name="file"; filename="a"').replace(b'"y"', b'"file[safe]"')
    with pytest.raises(ContentRefused, match="brackets"):
        read_content(MULTIPART, body)
