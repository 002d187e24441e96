"""An alert comes to each destination in its form, verified, through whatever a receiver does."""

import asyncio
import json
import socket
from collections.abc import Callable

import pytest
from standardwebhooks import Webhook

from control.alerts.alert import Raise, Severity
from control.alerts.signature import signature
from control.state.outbox import Patience
from tests.control.alerts.conftest import QUICK, World
from tests.control.alerts.receivers import SyslogReceiver, verified, wait_until
from tests.worlds.authority import Authority
from tests.worlds.origin import Action, Peer, Request, answers, reply
from tests.worlds.origin_thread import OriginThread

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEXT = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
SPENT = Raise(
    "acme", "spend.threshold", Severity.WARNING, "agent has used 80% of 5 USD per day",
    {"account": "agent", "used": "4 USD"},
)  # fmt: skip
ABORTED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""asyncio's server leaves the socket of a handshake that was refused to the collector: the test's origin, not ours."""
type Details = Callable[[str], list[dict[str, str]]]


def hook(port: int, *, secret: str = "ops", dial: bool = True) -> str:
    dialled = f", dial: '127.0.0.1:{port}'" if dial else ""
    return f'ops: {{webhook: "https://hooks.test/exeat", secret: {secret}{dialled}, ca: lab-ca.pem}}'


def test_the_published_vector_of_standard_webhooks() -> None:
    from rules.alerts.secrets import Secret, signing_key

    made = signature([signing_key(Secret(KEY))], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_is_signed_by_every_key(world: World, records: Details) -> None:
    with OriginThread(("hooks.test",)) as service:
        world.apply(hook(service.port, secret="[ops, next]"), ca=service.authority.pem, ops=KEY, next=NEXT)
        world.deliver()
        alert = world.state.alerts.raise_alert(SPENT)
        assert alert is not None
        wait_until(lambda: world.states() == {"log": "delivered", "ops": "delivered"})
        (request,) = service.seen()
        assert (request.method, request.target, request.header("webhook-id")) == ("POST", "/exeat", alert.id)
        assert verified(request, KEY)
        headers = {name.lower(): value for name, value in request.headers}
        assert Webhook(KEY).verify(request.body, headers)["type"] == "spend.threshold"
        assert verified(request, NEXT)
        assert not verified(request, "whsec_" + "A" * 32)
        said = json.loads(request.body)
        assert said["type"] == "spend.threshold"
        assert said["data"]["text"] == SPENT.text
        assert said["data"]["detail"] == {"account": "agent", "used": "4 USD"}
        (raised,) = records("alert.raise")
        assert (raised["alert"], raised["about.used"]) == (alert.id, "4 USD")
        assert records("alert.undelivered") == []


def test_a_slack_hooks_address_is_a_secret_and_stays_one(
    world: World, caplog: pytest.LogCaptureFixture, records: Details
) -> None:
    caplog.set_level("INFO")
    with OriginThread(("hooks.test",), answers(reply(status="500 No"))) as service:
        address = f"https://hooks.test:{service.port}/services/T00/hidden-part"
        world.apply("chat: {slack: chat, dial: 127.0.0.1, ca: lab-ca.pem}", ca=service.authority.pem, chat=address)
        world.deliver()
        world.state.alerts.raise_alert(Raise("acme", "t", Severity.NOTICE, "a <b> & c", {"account": "agent"}))
        wait_until(lambda: len(service.seen()) > 1)
        service.origin.script = answers(reply(b"ok"))
        wait_until(lambda: world.states()["chat"] == "delivered")
        request = service.seen()[-1]
        assert request.target == "/services/T00/hidden-part"
        text = json.loads(request.body)["text"]
        assert text.startswith("notice: a &lt;b&gt; &amp; c\naccount agent\n")
        everything = caplog.text + str(records("alert.undelivered")) + str(world.state.alerts.read.destinations())
        assert "HTTP 500" in everything
        assert "hidden-part" not in everything


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (answers(reply(status="500 Internal Server Error")), "HTTP 500"),
        (answers(reply(status="302 Found", headers="Location: https://elsewhere.test/\r\n")), "HTTP 302"),
        (answers(Action.ABORT), "connection"),
        (answers(b"\x00\x01 not http\r\n\r\n"), "HTTP"),
    ],
)
def test_a_failure_is_recorded_once_and_tried_until_it_is_taken(
    world: World, records: Details, script: Callable[..., object], told: str
) -> None:
    with OriginThread(("hooks.test",), script) as service:  # type: ignore[arg-type]
        world.apply(hook(service.port), ca=service.authority.pem, ops=KEY)
        world.deliver()
        alert = world.state.alerts.raise_alert(SPENT)
        assert alert is not None
        wait_until(lambda: len(service.seen()) > 2)
        service.origin.script = answers(reply(b""))
        wait_until(lambda: world.states()["ops"] == "delivered")
        assert {request.header("webhook-id") for request in service.seen()} == {alert.id}
        (failed,) = records("alert.undelivered")
        assert (failed["destination"], failed["result"], failed["attempts"]) == ("ops", "failed", "1")
        assert told in failed["why"] or "origin" in failed["why"]


def test_an_endless_reply_is_not_read(world: World) -> None:
    async def endless(_: Request, peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not peer.connection.closed.is_set():
            await asyncio.sleep(0)
            await peer.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    with OriginThread(("hooks.test",), endless) as service:
        world.apply(hook(service.port), ca=service.authority.pem, ops=KEY)
        world.deliver()
        world.state.alerts.raise_alert(SPENT)
        wait_until(lambda: world.states()["ops"] == "delivered")


def test_one_that_hangs_keeps_nobody_waiting(world: World) -> None:
    with OriginThread(("hooks.test",), answers(Action.HANG)) as silent, SyslogReceiver() as siem:
        world.apply(
            hook(silent.port) + f"\nsiem: {{syslog: 'tcp://127.0.0.1:{siem.port}', networks: [127.0.0.0/8]}}",
            ca=silent.authority.pem, ops=KEY,
        )  # fmt: skip
        world.deliver()
        for _ in range(3):
            world.state.alerts.raise_alert(SPENT)
        wait_until(lambda: len(siem.messages) == 3)
        wait_until(silent.seen)
        assert world.states() == {"log": "delivered", "ops": "waiting", "siem": "delivered"}
        assert len(silent.seen()) == 1, "one attempt at a time"


@ABORTED
def test_a_receiver_of_another_authority_gets_nothing(world: World, records: Details) -> None:
    with OriginThread(("hooks.test",)) as service:
        world.apply(hook(service.port), ca=Authority().pem, ops=KEY)
        world.deliver()
        world.state.alerts.raise_alert(SPENT)
        wait_until(lambda: records("alert.undelivered"))
        assert service.seen() == []
        assert "certificate" in world.told("ops")


def test_a_name_that_leads_to_a_private_address_is_not_dialled(world: World, records: Details) -> None:
    with OriginThread(("localhost",)) as service:
        world.apply(
            f'ops: {{webhook: "https://localhost:{service.port}/x", secret: ops, ca: lab-ca.pem}}',
            ca=service.authority.pem, ops=KEY,
        )  # fmt: skip
        world.deliver()
        world.state.alerts.raise_alert(SPENT)
        wait_until(lambda: records("alert.undelivered"))
        assert "loopback" in world.told("ops")
        assert service.origin.connections == []


def test_a_secret_that_is_missing_is_said(world: World) -> None:
    world.apply(hook(1), ca=Authority().pem)
    assert world.state.missing_secrets() == ("acme/ops",)
    world.deliver()
    world.state.alerts.raise_alert(SPENT)
    wait_until(lambda: world.told("ops") == "the secret ops is not set: exeat secret set ops")


def test_syslog_as_a_datagram(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(20)
        port = receiver.getsockname()[1]
        world.apply(f"siem: {{syslog: 'udp://127.0.0.1:{port}', networks: [127.0.0.0/8]}}")
        world.deliver()
        world.state.alerts.raise_alert(SPENT)
        _said_in_rfc_5424(receiver.recv(65535))


def test_syslog_over_tcp_is_counted_and_one_that_resets_is_tried_again(world: World, records: Details) -> None:
    with SyslogReceiver(deaf=True) as siem:
        world.apply(f"siem: {{syslog: 'tcp://127.0.0.1:{siem.port}', networks: [127.0.0.0/8]}}")
        world.deliver()
        world.state.alerts.raise_alert(SPENT)
        wait_until(lambda: records("alert.undelivered"))
        siem.deaf = False
        wait_until(lambda: world.states()["siem"] == "delivered")
        wait_until(lambda: siem.messages)
        _said_in_rfc_5424(siem.messages[0])


def test_syslog_over_tls_is_verified(world: World, records: Details) -> None:
    authority = Authority()
    siem_of = "siem: {{syslog: 'tls://siem.test:{0}', dial: '127.0.0.1:{0}', ca: lab-ca.pem}}"
    with SyslogReceiver(authority.issue("siem.test")) as siem, SyslogReceiver(authority.issue("other.test")) as other:
        world.apply(siem_of.format(other.port), ca=authority.pem)
        world.deliver()
        world.state.alerts.raise_alert(SPENT)
        wait_until(lambda: records("alert.undelivered"))
        assert "certificate does not verify" in world.told("siem")
        assert other.messages == []
        world.apply(siem_of.format(siem.port), ca=authority.pem)
        wait_until(lambda: world.states()["siem"] == "delivered")
        wait_until(lambda: siem.messages)
        _said_in_rfc_5424(siem.messages[0])


def _said_in_rfc_5424(message: bytes) -> None:
    header, _, said = message.decode("ascii").partition(" - {")
    priority, at, _, app, _, kind = header.split(" ")
    assert (priority, app, kind) == ("<108>1", "exeat", "spend.threshold")
    assert at.endswith("Z")
    assert json.loads("{" + said)["text"] == SPENT.text


def test_what_was_raised_is_delivered_after_a_restart(world: World) -> None:
    with OriginThread(("hooks.test",)) as service:
        world.apply(hook(service.port), ca=service.authority.pem, ops=KEY)
        first = world.state.alerts.raise_alert(SPENT)
        assert first is not None
        world.restart()
        assert world.states() == {"log": "waiting", "ops": "waiting"}
        world.deliver()
        wait_until(lambda: world.states() == {"log": "delivered", "ops": "delivered"})
        assert [request.header("webhook-id") for request in service.seen()] == [first.id]


def test_an_alert_with_a_key_is_raised_once_over_a_restart(world: World, records: Details) -> None:
    world.apply("siem: {syslog: 'udp://siem.example'}")
    once = Raise("acme", "spend.threshold", Severity.WARNING, "80%", once="acme/agent/USD/day/2026-11-25/80")
    assert world.state.alerts.raise_alert(once) is not None
    assert world.state.alerts.raise_alert(once) is None
    world.restart()
    assert world.state.alerts.raise_alert(once) is None
    assert len(records("alert.raise")) == 1


def test_it_is_given_up_in_the_end_and_that_is_recorded(world: World, records: Details) -> None:
    with OriginThread(("hooks.test",), answers(reply(status="503 No"))) as service:
        world.patience = Patience(first_seconds=0.05, longest_seconds=0.1, end_seconds=0.5)
        world.apply(hook(service.port), ca=service.authority.pem, ops=KEY)
        world.deliver()
        world.state.alerts.raise_alert(SPENT)
        wait_until(lambda: world.states()["ops"] == "given up")
        wait_until(lambda: [one["result"] for one in records("alert.undelivered")] == ["failed", "given_up"])
        assert world.state.alerts.read.counts().given_up == 1


def test_more_than_may_wait_drops_the_oldest_of_that_destination_alone(world: World, records: Details) -> None:
    world.state.alerts.patience = Patience(most_waiting=3)
    world.apply("siem: {syslog: 'udp://siem.example'}\nother: {syslog: 'udp://siem.example'}")
    ids = [alert.id for _ in range(15) if (alert := world.state.alerts.raise_alert(SPENT))]
    shown = {one.destination: one for one in world.state.alerts.read.destinations()}
    assert (shown["siem"].waiting, shown["siem"].dropped) == (3, 12)
    dropped = [one for one in records("alert.undelivered") if one["destination"] == "siem"]
    assert [(one["result"], one["dropped"]) for one in dropped] == [("dropped", "1"), ("dropped", "10")]
    kept = [alert.id for alert, rows in world.state.alerts.read.latest(20) if any(r[2] == "waiting" for r in rows)]
    assert sorted(kept) == sorted(ids[-3:])


def test_what_concerns_the_installation_goes_where_a_policy_says_so(world: World) -> None:
    world.apply("siem: {syslog: 'udp://siem.example', installation: true}\nops: {syslog: 'udp://siem.example'}")
    world.state.alerts.raise_alert(Raise("-", "ledger.halted", Severity.CRITICAL, "the ledger has halted"))
    assert set(world.states()) == {"log", "siem"}
    world.state.alerts.raise_alert(Raise("other", "spend.threshold", Severity.WARNING, "another tenant's"))
    assert set(world.states()) == {"log"}


def test_a_destination_that_is_no_more_is_given_up(world: World, records: Details) -> None:
    world.patience = QUICK
    world.apply("siem: {syslog: 'udp://siem.example'}")
    world.state.alerts.raise_alert(SPENT)
    world.apply("ops: {syslog: 'udp://siem.example'}")
    world.deliver()
    wait_until(lambda: world.states()["siem"] == "given up")
    wait_until(lambda: records("alert.undelivered"))
    assert "no such destination" in records("alert.undelivered")[0]["why"]


def test_an_alert_is_one_line_wherever_its_words_come_from(world: World) -> None:
    hostile = Raise("acme", "t", Severity.NOTICE, "a\nb\x1b[31m\u202ec\0", {"run": "x\r\ny" * 1000})
    alert = world.state.alerts.raise_alert(hostile)
    assert alert is not None
    assert alert.text == "a b [31m c"
    assert len(alert.detail["run"]) <= 512
    assert alert.detail["run"].isprintable()
