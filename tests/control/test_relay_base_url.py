"""Base-URL requests through the relay: the password stands in one place, and never reaches the door."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.relay import Relay
from control.relay_head import HeadRefused, parse_relay_head
from control.relay_password import FIELDS, PARAMETERS, PasswordMissing, PasswordWrong, without_password
from proxy import base_url
from tests.control.test_relay import TOKEN, Door, agent, basic, exchange, world

PASSWORD = b"pass-word_4f0c7e21b9d84fa6a1c3e5d7f9b1a3c5d7e"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CREDENTIAL = b"Proxy-Authorization: Basic " + base64.b64encode(b"support-agent:" + TOKEN.encode())


def answering() -> Door:
    return Door(ANSWER)


def pair(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


def of(relay: Relay) -> bytes:
    return relay.password.reveal()


def test_the_places_are_the_doors_own() -> None:
    assert FIELDS == base_url.HEADER_PLACES
    assert PARAMETERS == base_url.QUERY_PLACES


@pytest.mark.anyio
@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer %b",
        b"authorization: token %b",
        b"x-api-key: %b",
        b"Api-Key:%b",
        b"X-Goog-Api-Key:  %b ",
        b"PRIVATE-TOKEN: %b",
        b"Proxy-Authorization: Bearer %b",
    ],
)
async def test_the_field_with_the_password_gives_way_to_the_credential(line: bytes) -> None:
    async with world(answering()) as (relay, door), agent(relay) as (reader, writer):
        head = b"POST /to/saas/things?a=1&b HTTP/1.1\r\nHost: 127.0.0.1:1\r\n%b\r\nX-Odd:  kept \r\n\r\n{}"
        writer.write(head % (line % of(relay)))
        assert await reader.readexactly(len(ANSWER)) == ANSWER
        assert door.heads == [
            b"POST /to/saas/things?a=1&b HTTP/1.1\r\nHost: 127.0.0.1:1\r\nX-Odd:  kept \r\n"
            + CREDENTIAL
            + b"\r\nConnection: close\r\n\r\n"
        ]
        assert await reader.readexactly(7) == b"echo:{}", "the body follows as it is"


@pytest.mark.anyio
@pytest.mark.parametrize("shape", [b"%b:", b"agent:%b", b":%b"])
async def test_the_password_in_either_half_of_a_basic_pair(shape: bytes) -> None:
    async with world(answering()) as (relay, door):
        line = b"Authorization: " + pair(shape % of(relay))
        await exchange_until_answered(relay, b"GET /to/saas/x HTTP/1.1\r\n" + line + b"\r\n\r\n")
        assert door.heads == [b"GET /to/saas/x HTTP/1.1\r\n" + CREDENTIAL + b"\r\nConnection: close\r\n\r\n"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"/to/saas/x?key=%b", b"/to/saas/x"),
        (b"/to/saas/x?a=%%26&key=%b&&b=%%2e;c", b"/to/saas/x?a=%26&&b=%2e;c"),
        (b"/to/saas/x?key=other-thing-entirely&token=%b", b"/to/saas/x?key=other-thing-entirely"),
        (b"/to/saas/x?access_token=%b&", b"/to/saas/x?"),
    ],
)
async def test_the_parameter_with_the_password_is_taken_out_and_no_other_byte_changes(
    before: bytes, after: bytes
) -> None:
    async with world(answering()) as (relay, door):
        await exchange_until_answered(relay, b"GET " + before % of(relay) + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert door.heads[0].startswith(b"GET " + after + b" HTTP/1.1\r\nHost: h\r\nProxy-Authorization: ")


async def exchange_until_answered(relay: Relay, raw: bytes) -> None:
    async with agent(relay) as (reader, writer):
        writer.write(raw)
        assert await reader.readexactly(len(ANSWER)) == ANSWER


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /to/saas/x HTTP/1.1\r\nAuthorization: Bearer %b\r\nX-Api-Key: %b", 400),
        (b"GET /to/saas/x?key=%b HTTP/1.1\r\nX-Api-Key: %b", 400),
        (b"GET /to/saas/x?key=%b&token=%b HTTP/1.1", 400),
        (b"GET /to/saas/x?key=%b&key=%b HTTP/1.1", 400),
        (b"GET /to/saas/x?key=%b&key=other HTTP/1.1", 400),
        (b"GET /to/saas/x?key=%b&KEY=%b HTTP/1.1", 400),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: %b\r\nX-Api-Key: other", 400),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: %b\r\nX-Other: %b", 400),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: %b\r\nReferer: http://h/?key=%b", 400),
        (b"GET /to/saas/%b HTTP/1.1\r\nX-Api-Key: %b", 400),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: %b\r\nProxy-Authorization: Basic eDp5", 400),
        (b"GET /to/saas/x?key=%b HTTP/1.1\r\nProxy-Authorization: Bearer other", 400),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: %b\r\n X-Api-Key: other", 400),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key : %b", 400),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: x\nX-Api-Key: %b", 400),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Unknown: %b", 401),
        (b"GET /to/saas/x?KEY=%b HTTP/1.1", 401),
        (b"GET /to/saas/x#?key=%b HTTP/1.1\r\nX-Api-Key: wrong", 200),
        (b"GET /to/saas/x?%%6bey=%b HTTP/1.1", 401),
        (b"GET /to/saas/%b HTTP/1.1", 401),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: %bx", 401),
        (b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: ", 401),
        (b"GET /to/saas/x HTTP/1.1", 401),
        (b"GET http://plain.test/ HTTP/1.1\r\nX-Api-Key: %b", 407),
    ],
)
async def test_a_password_in_a_wrong_place_or_in_two_never_reaches_the_door(head: bytes, status: int) -> None:
    async with world(answering()) as (relay, door):
        raw = re.sub(rb"%b", lambda _: of(relay), head).replace(b"%%", b"%") + b"\r\n\r\n"
        if status == 200:  # the door refuses a fragment; what matters here is that the password is gone
            await exchange_until_answered(relay, raw)
            assert of(relay) not in door.heads[0]
            return
        answer = await exchange(relay, raw)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nExeat-Code: " in answer
        assert of(relay) not in answer
        assert (b"\r\nWWW-Authenticate: Basic " in answer) == (status == 401)
        assert door.heads == []


@pytest.mark.anyio
@pytest.mark.parametrize("place", ["key", "basic", "odd"])
async def test_a_copy_beside_a_proxys_password_is_refused_as_well(place: str) -> None:
    async with world() as (relay, door):
        copies = {"key": of(relay), "basic": pair(b"x:" + of(relay)), "odd": b"a" + of(relay) + b"c"}
        lines = basic(relay) + b"\r\nX-Api-Key: " + copies[place] + b"\r\n\r\n"
        answer = await exchange(relay, b"GET http://plain.test/ HTTP/1.1\r\n" + lines)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert door.heads == []


@pytest.mark.anyio
async def test_a_second_request_on_the_same_connection_is_not_let_through_by_the_first() -> None:
    """The door is told to close after the first; the second still has no credential."""
    async with world(answering()) as (relay, door), agent(relay) as (reader, writer):
        one = b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: " + of(relay) + b"\r\n\r\n"
        two = b"GET /to/saas/y HTTP/1.1\r\nHost: h\r\n\r\n"
        writer.write(one + two)
        await reader.readexactly(len(ANSWER))
        assert door.heads[0].endswith(b"\r\nConnection: close\r\n\r\n")
        assert door.heads[0].count(b"Proxy-Authorization") == 1
        await reader.readexactly(5 + len(two))
        assert door.bodies == [two]
        assert TOKEN.encode() not in door.bodies[0]


@pytest.mark.anyio
@pytest.mark.parametrize("host", [b"127.0.0.1", b"localhost"])
@pytest.mark.parametrize("key", [b"X-Api-Key: %b\r\n", b"", b"X-Api-Key: another\r\n"])
async def test_a_base_url_request_sent_through_the_relay_as_a_proxy_is_one_all_the_same(
    host: bytes, key: bytes
) -> None:
    """Every client that obeys HTTP_PROXY sends it so, because there are no exceptions in NO_PROXY."""
    async with world(answering()) as (relay, door):
        authority = host + b":%d" % relay.port
        field = key.replace(b"%b", of(relay))
        first = b"GET http://" + authority + b"/to/saas/x?a HTTP/1.1\r\nHost: " + authority + b"\r\n"
        await exchange_until_answered(relay, first + field + basic(relay) + b"\r\n\r\n")
        kept = b"" if of(relay) in field else field
        origin_form = b"GET /to/saas/x?a HTTP/1.1\r\nHost: " + authority + b"\r\n"
        assert door.heads == [origin_form + kept + CREDENTIAL + b"\r\nConnection: close\r\n\r\n"]


@pytest.mark.anyio
async def test_a_tunnel_to_the_relay_itself_leads_to_the_base_url_and_proves_nothing() -> None:
    established = b"HTTP/1.1 200 Connection Established\r\n\r\n"
    async with world(answering()) as (relay, door):
        connect = b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % relay.port + basic(relay) + b"\r\n\r\n"
        for piece in (b"", connect):  # a client that does not wait, and one that tunnels again
            async with agent(relay) as (reader, writer):
                writer.write(connect + (piece or b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: " + of(relay) + b"\r\n\r\n"))
                assert await reader.readexactly(len(established)) == established
                assert await reader.readexactly(len(ANSWER)) == ANSWER
        assert [head.split(b" ")[:2] for head in door.heads] == [
            [b"GET", b"/to/saas/x"],
            [b"CONNECT", b"127.0.0.1:%d" % relay.port],
        ], "the second is the door's to refuse"
        assert not any(of(relay) in head for head in door.heads)
        answer = await exchange(relay, connect + b"GET /to/saas/x HTTP/1.1\r\nX-Api-Key: wrong\r\n\r\n")
        assert answer.startswith(established + b"HTTP/1.1 401 ")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lines",
    [b"X-Api-Key: %b", b"X-Api-Key: %b\r\nProxy-Authorization: Basic eDp5", b"Proxy-Authorization: Bearer %b"],
)
async def test_through_the_relay_as_a_proxy_the_proxys_password_has_to_be_right(lines: bytes) -> None:
    async with world(answering()) as (relay, door):
        first = b"GET http://127.0.0.1:%d/to/saas/x HTTP/1.1\r\n" % relay.port
        answer = await exchange(relay, first + lines.replace(b"%b", of(relay)) + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert door.heads == []


TEXT = st.binary(min_size=0, max_size=24).filter(lambda b: not re.search(rb"[\x00-\x20\x7f-\xff]", b))
SPOT = st.one_of(TEXT, st.just(PASSWORD), st.builds(lambda a, b: a + PASSWORD + b, TEXT, TEXT))
VALUE = st.one_of(
    SPOT,
    st.builds(lambda s: b"Bearer " + s, SPOT),
    st.builds(lambda a, b: pair(a + b":" + b), SPOT, SPOT),
    st.just(pair(b"agent:" + PASSWORD)),
    st.builds(lambda s: b"".join(b"%%%02x" % c for c in s), SPOT),
)
NAME = st.sampled_from([*FIELDS, b"X-Api-KEY", b"X-Other", b"Connection", b"Cookie"])


@given(
    path=st.sampled_from([b"/to/a/b", b"/to/a/" + PASSWORD, b"/x", b"http://p.test/", b"http://own:1/to/a"]),
    query=st.lists(st.tuples(st.sampled_from([*PARAMETERS, b"KEY", b"x", b""]), VALUE), max_size=3),
    fields=st.lists(st.tuples(NAME, VALUE), max_size=4),
)
def test_whatever_is_let_through_carries_no_password(
    path: bytes, query: list[tuple[bytes, bytes]], fields: list[tuple[bytes, bytes]]
) -> None:
    target = path + (b"?" + b"&".join(name + b"=" + value for name, value in query) if query else b"")
    raw = b"\r\n".join([b"GET " + target + b" HTTP/1.1", *(name + b": " + value for name, value in fields)])
    try:
        rest = without_password(parse_relay_head(raw), b"agent", PASSWORD, (b"own:1",))
    except (HeadRefused, PasswordMissing, PasswordWrong):
        return
    left = rest.target + b"\n" + b"\n".join(line.raw for line in rest.lines)
    decoded = re.sub(rb"%([0-9A-Fa-f]{2})", lambda e: bytes((int(e[1], 16),)), rest.target)
    assert PASSWORD not in left + decoded
    assert not any(PASSWORD in base64.b64decode(v) for v in re.findall(rb"Basic (\S+)", left))
    assert not [line for line in rest.lines if line.name == b"proxy-authorization"], "only ours stands there"
