"""The way to the server: addresses, a user with the least rights, TLS, and servers that must not be used."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from control.stores.counted import Budget
from control.stores.redis.place import Place, RedisRefused
from control.stores.redis.store import RedisReservations
from rules.claims import (
    LeaseClaim,
    OnceClaim,
    PauseClaim,
    Queue,
    RateClaim,
    ReservationsUnavailable,
    Reserved,
    SpendClaim,
    Ticket,
    Waiting,
)
from tests.control.stores.subjects import granted
from tests.worlds.authority import Authority
from tests.worlds.valkey import Valkey, valkey

pytestmark = pytest.mark.anyio

PASSWORD = "password123"
DOCUMENT = Path(__file__).parents[4] / "docs" / "how-to" / "redis.md"
CLAIMS = (
    RateClaim(("acme", "agent", "rate"), 1_000_000, 10, "many"),
    PauseClaim(("acme", "connection", "stripe")),
    OnceClaim(("acme", "agent", "k"), "digest"),
    SpendClaim(("acme", "agent", "USD", "day"), "2026-11-20", 100, 10, "USD", 4_000_000_000),
    LeaseClaim(("acme", "agent", "concurrency"), 3),
)


def auth_file(folder: Path, text: str = f"exeat:{PASSWORD}\n", mode: int = 0o600) -> Path:
    path = folder / "auth"
    path.write_text(text)
    path.chmod(mode)
    return path


async def everything(store: RedisReservations) -> None:
    """Every script, every branch that uses another command, every reading."""
    assert await store.unready(["acme"]) == ("acme",)
    held = ("c_0", (("acme/agent/USD/day", "2026-11-20", 5, "price"),))
    budget = ("acme/agent/USD/day", Budget("2026-11-20", 4_000_000_000, 5))
    await store.rebuild(["acme"], [budget], [(("acme", "r"), 2**51)], "g1", [held])
    reserved = granted(await store.reserve("c_1", CLAIMS))
    assert len(await store.holders("acme")) == 1
    await store.keep_now()
    store.pause(("acme", "connection", "other"), 1)
    store.settle(reserved, {"price": 3})
    store.release(granted(await store.reserve("c_2", CLAIMS)))
    assert await store.settled()
    (correction,) = await store.corrections("acme")
    assert await store.correct("acme", correction, {"price": 2})
    (budget_now,) = await store.budgets("acme")
    assert (budget_now.spent_micros, budget_now.reserved_micros) == (5, 0)
    slot = LeaseClaim(("acme", "*", "concurrency"), 1, Queue(5, 5))
    held = granted(await store.reserve("c_slot", (slot,)))
    first, second = Ticket("a"), Ticket("b")
    assert isinstance(await store.reserve_or_wait("c_first", (slot,), first), Waiting)
    assert isinstance(await store.reserve_or_wait("c_second", (slot,), second), Waiting)
    assert await store.waiting("acme", ["acme/*/concurrency"]) == {"acme/*/concurrency": 2}
    store.leave(first)
    store.release(held)
    assert await store.settled()
    assert isinstance(await store.reserve_or_wait("c_second", (slot,), second), Reserved)
    assert store.health().dropped == 0


class TestUser:
    @pytest.fixture
    def users(self, tmp_path: Path) -> Path:
        """The user of the documentation."""
        (text,) = re.findall(r"^```acl\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
        path = tmp_path / "users.acl"
        path.write_text(text)
        return path

    async def test_the_documented_user_can_do_all_that_is_needed(self, tmp_path: Path, users: Path) -> None:
        with valkey(tmp_path / "valkey", "--aclfile", str(users)) as server:
            store = RedisReservations(Place.parse(server.url, auth_file=auth_file(tmp_path)), "w1")
            await store.start()
            await everything(store)
            await store.stop()

    async def test_the_documented_user_can_do_nothing_else(self, tmp_path: Path, users: Path) -> None:
        with valkey(tmp_path / "valkey", "--aclfile", str(users)) as server:
            client = redis.Redis(port=server.port, username="exeat", password=PASSWORD)
            for command in ("FLUSHALL", "CONFIG GET *", "KEYS *", "SCRIPT FLUSH", "SHUTDOWN", "ACL LIST", "GET other"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command.split())
            client.close()

    @pytest.mark.parametrize("text", ["exeat:wrong", PASSWORD])
    async def test_a_wrong_password_is_refused_at_the_start_and_said_without_it(
        self, tmp_path: Path, users: Path, text: str
    ) -> None:
        with valkey(tmp_path / "valkey", "--aclfile", str(users)) as server:
            place = Place.parse(server.url, auth_file=auth_file(tmp_path, text))
            store = RedisReservations(place, "w1")
            with pytest.raises(RedisRefused, match="refuses us: WRONGPASS") as refused:
                await store.start()
            assert text.rsplit(":", maxsplit=1)[-1] not in str(refused.value) + repr(place) + repr(store.health())

    async def test_a_missing_right_is_refused_at_the_start(self, tmp_path: Path, users: Path) -> None:
        users.write_text(users.read_text().replace("+script|load", ""))
        with valkey(tmp_path / "valkey", "--aclfile", str(users)) as server:
            store = RedisReservations(Place.parse(server.url, auth_file=auth_file(tmp_path)), "w1")
            with pytest.raises(RedisRefused, match="NOPERM"):
                await store.start()


class TestServers:
    @pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
    async def test_one_that_may_forget_is_refused(self, tmp_path: Path, policy: str) -> None:
        with valkey(tmp_path / "valkey", "--maxmemory-policy", policy) as server:
            store = RedisReservations(Place.parse(server.url), "w1")
            with pytest.raises(RedisRefused, match=policy) as refused:
                await store.start()
            assert "noeviction" in refused.value.fix

    async def test_one_that_may_forget_from_now_on_is_refused_at_the_next_connection(self, server: Valkey) -> None:
        store = RedisReservations(Place.parse(server.url), "w1")
        await store.start()
        await store.rebuild(["acme"], (), (), "g1")
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.client_kill_filter(_type="normal", skipme=True)
        for _ in range(3):
            with pytest.raises(ReservationsUnavailable):
                await store.reserve("c_1", CLAIMS)
        assert "allkeys-lru" in store.health().degraded
        await store.stop()

    async def test_a_replica_is_not_used(self, tmp_path: Path, server: Valkey) -> None:
        with valkey(tmp_path / "replica", "--replicaof", f"127.0.0.1 {server.port}") as replica:
            store = RedisReservations(Place.parse(replica.url), "w1")
            await store.start()
            with pytest.raises(ReservationsUnavailable):
                await store.reserve("c_1", CLAIMS)
            await store.stop()

    async def test_what_is_no_such_server_is_not_believed(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        store = RedisReservations(Place.parse(f"redis://127.0.0.1:{port}"), "w1")
        await store.start()
        with pytest.raises(ReservationsUnavailable):
            await store.reserve("c_1", CLAIMS)
        assert "protocol" in store.health().last_error
        await store.stop()
        listener.close()

    async def test_a_unix_socket_and_a_database_of_its_own(self, server: Valkey) -> None:
        store = RedisReservations(Place.parse(f"unix://{server.socket}"), "w1")
        await store.start()
        await everything(store)
        await store.stop()
        other = RedisReservations(Place.parse(f"{server.url}/3"), "w1")
        await other.start()
        await everything(other)
        await other.stop()


@asynccontextmanager
async def terminator(server: Valkey, authority: Authority, name: str) -> AsyncIterator[int]:
    """TLS in front of a server that has none; gives its port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    serving: set[asyncio.Event] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done = asyncio.Event()
        serving.add(done)
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, behind_writer), pump(behind_reader, writer))
        for end in (writer, behind_writer):
            with contextlib.suppress(OSError):
                await end.wait_closed()
        done.set()

    context = authority.issue(name).server_context()
    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        async with asyncio.timeout(20):
            for done in serving:
                await done.wait()
        await asyncio.sleep(0.05)  # aborted transports are closed in a later turn of the loop


class TestTls:
    async def test_everything_goes_through_it(self, server: Valkey, tmp_path: Path) -> None:
        authority = Authority()
        (tmp_path / "ca.pem").write_text(authority.pem)
        async with terminator(server, authority, "localhost") as port:
            place = Place.parse(f"rediss://localhost:{port}", ca_file=tmp_path / "ca.pem")
            store = RedisReservations(place, "w1", connect_seconds=5)
            await store.start()
            await everything(store)
            await store.stop()

    @pytest.mark.parametrize("wrong", ["authority", "name"])
    async def test_a_server_that_cannot_prove_its_name_hears_nothing(
        self, server: Valkey, tmp_path: Path, wrong: str
    ) -> None:
        authority = Authority()
        (tmp_path / "ca.pem").write_text((Authority() if wrong == "authority" else authority).pem)
        async with terminator(server, authority, "other.example" if wrong == "name" else "localhost") as port:
            place = Place.parse(f"rediss://localhost:{port}", ca_file=tmp_path / "ca.pem")
            store = RedisReservations(place, "w1", connect_seconds=5)
            await store.start()
            with pytest.raises(ReservationsUnavailable, match="certificate verify failed"):
                await store.reserve("c_1", CLAIMS)
            await store.stop()


class TestAddress:
    def test_forms(self) -> None:
        assert str(Place.parse("redis://127.0.0.1")) == "127.0.0.1:6379"
        assert str(Place.parse("redis://[::1]:7000/2")) == "::1:7000"
        assert Place.parse("redis://[::1]:7000/2").database == 2
        assert str(Place.parse("unix:///run/valkey.sock")) == "/run/valkey.sock"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis://localhost:port",
            "redis://localhost/x",
            "redis://localhost/-1",
            "redis://localhost:6379/0?ssl=1",
            "redis://user:secret@localhost",
            "redis://:secret@localhost",
        ],
    )
    def test_what_is_none_is_refused_without_repeating_a_password(self, url: str) -> None:
        with pytest.raises(RedisRefused) as refused:
            Place.parse(url)
        assert "secret" not in str(refused.value)
        assert refused.value.fix

    def test_an_authority_without_tls_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RedisRefused, match="not TLS"):
            Place.parse("redis://localhost", ca_file=tmp_path)

    @pytest.mark.parametrize("text", [None, "", "no certificate"])
    def test_a_file_without_certificates_is_refused(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "ca.pem").write_text(text)
        with pytest.raises(RedisRefused, match=r"ca\.pem"):
            Place.parse("rediss://localhost", ca_file=tmp_path / "ca.pem")

    @pytest.mark.parametrize(
        ("text", "user", "password"),
        [("exeat:a:b", "exeat", b"a:b"), ("secret\n", "", b"secret"), (":with:colons", "", b"with:colons")],
    )
    def test_user_and_password_come_from_a_file(self, tmp_path: Path, text: str, user: str, password: bytes) -> None:
        place = Place.parse("redis://localhost", auth_file=auth_file(tmp_path, text))
        assert place.password is not None
        assert (place.user, place.password.reveal()) == (user, password)

    @pytest.mark.parametrize(
        ("text", "mode"), [("a:b", 0o644), ("a:b", 0o640), ("", 0o600), ("a:", 0o600), ("a\nb", 0o600)]
    )
    def test_a_file_that_others_read_or_that_holds_nothing_is_refused(
        self, tmp_path: Path, text: str, mode: int
    ) -> None:
        with pytest.raises(RedisRefused):
            Place.parse("redis://localhost", auth_file=auth_file(tmp_path, text, mode))

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RedisRefused, match="No such file"):
            Place.parse("redis://localhost", auth_file=tmp_path / "none")
