"""What could not be done is on record: begun once, ended once, whoever noticed and however often it came and went."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest

from control.degraded import Episodes, Losses, sources_of
from control.state import State, StateUnavailable
from credentials.actor import Actor
from ledger import Receipt, read_records
from tests.worlds.fleet import ACCOUNT, HOST, POLICY, SECRET, agent_of, script
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running

QUIET = 0.1


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state", create=True) as opened:
        yield opened


def recorded(state: State) -> list[tuple[str, dict[str, str]]]:
    found = read_records(state.ledger.directory, types=frozenset({"operator.act"}))
    return [(one.body["act"], one.body["detail"]) for one in found if one.body["act"].startswith("degraded.")]


def quiet(episodes: Episodes, seconds: float = QUIET) -> None:
    """So long that what has ended is over."""
    time.sleep(seconds + 0.05)
    episodes.record()


def test_an_episode_is_two_records_that_say_what_why_who_and_when(state: State) -> None:
    why: list[str | None] = ["the disk\nis full"]
    episodes = Episodes(state, {"ledger": lambda: why[0]}, "w0", QUIET)
    (shown,) = episodes.now()
    assert (shown.control, shown.why, shown.nodes) == ("ledger", "the disk\nis full", ("w0",))
    assert episodes.gauges()["ledger"] == 1
    episodes.record()
    why[0] = None
    assert episodes.now() == ()
    assert set(episodes.gauges().values()) == {0}
    quiet(episodes)
    (begin, began), (end, ended) = recorded(state)
    assert (begin, end) == ("degraded.begin", "degraded.end")
    assert began["episode"] == ended["episode"]
    assert (began["mode"], began["why"], began["nodes"]) == ("closed", "the disk is full", "w0")
    assert (ended["control"], ended["since"], ended["times"]) == ("ledger", began["since"], "1")
    assert ended["since"] <= ended["until"]


def test_what_flaps_is_one_episode_and_the_next_one_waits_longer(state: State) -> None:
    episodes = Episodes(state, {}, quiet_seconds=QUIET)
    for node in ("w0", "w1") * 50:
        episodes.begins("limits", node, "gone")
        episodes.record()
        episodes.ends("limits", node)
        episodes.record()
    quiet(episodes)
    assert [(act, detail.get("times")) for act, detail in recorded(state)] == [
        ("degraded.begin", None), ("degraded.end", "100"),
    ]  # fmt: skip
    episodes.begins("limits", "w0", "gone again")
    episodes.ends("limits", "w0")
    quiet(episodes)
    assert [act for act, _ in recorded(state)][2:] == ["degraded.begin"], "it is of the same trouble"
    quiet(episodes)
    assert [act for act, _ in recorded(state)][2:] == ["degraded.begin", "degraded.end"]


def test_two_controls_are_two_episodes_and_one_ends_without_the_other(state: State) -> None:
    episodes = Episodes(state, {}, quiet_seconds=QUIET)
    episodes.begins("limits", "w0", "gone")
    episodes.begins("inputs", "control", "full")
    episodes.record()
    episodes.ends("limits", "w0")
    quiet(episodes)
    assert [(act, detail["control"]) for act, detail in recorded(state)] == [
        ("degraded.begin", "limits"), ("degraded.begin", "inputs"), ("degraded.end", "limits"),
    ]  # fmt: skip


def test_times_that_nodes_tell_late_are_one_time(state: State) -> None:
    episodes = Episodes(state, {}, quiet_seconds=QUIET)
    now = datetime.now(UTC)
    for node, late in (("w1", 0.1), ("w0", 0.0)):
        episodes.begins("revocations", node, "unheard", now - timedelta(seconds=9 - late))
        episodes.ends("revocations", node, now + timedelta(seconds=late))
    episodes.record()
    quiet(episodes)
    (_, began), (_, ended) = recorded(state)
    assert began["since"] == ended["since"] == f"{now - timedelta(seconds=9):%Y-%m-%dT%H:%M:%S.%fZ}"
    assert ended["until"] == f"{now + timedelta(seconds=0.1):%Y-%m-%dT%H:%M:%S.%fZ}"
    assert (ended["times"], ended["nodes"]) == ("1", "w0, w1")


class Away:
    """A ledger that takes nothing for a while."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.away = True

    def record_act(self, actor: Actor, act: str, detail: Mapping[str, str], tenant: str = "-") -> Receipt:
        if self.away:
            raise StateUnavailable("the ledger cannot be reached")
        return self.state.record_act(actor, act, detail, tenant)


def test_what_cannot_be_recorded_is_recorded_later_with_its_times(state: State) -> None:
    away = Away(state)
    episodes = Episodes(away, {}, quiet_seconds=QUIET)
    episodes.begins("ledger", "control", "away")
    with pytest.raises(StateUnavailable):
        episodes.record()
    away.away = False
    episodes.record()
    away.away = True
    episodes.ends("ledger", "control")
    time.sleep(QUIET + 0.05)
    with pytest.raises(StateUnavailable):
        episodes.record()
    episodes.begins("ledger", "control", "away again")
    episodes.ends("ledger", "control")
    away.away = False
    quiet(episodes)
    (_, began), (_, ended) = recorded(state)
    assert began["episode"] == ended["episode"]
    assert ended["times"] == "2"


def test_a_node_that_is_gone_says_nothing_any_more(state: State) -> None:
    episodes = Episodes(state, {}, quiet_seconds=QUIET)
    episodes.begins("limits", "w0", "gone")
    episodes.gone("w0")
    assert episodes.now() == ()
    episodes.ends("inputs", "w0")  # of which it never said anything
    episodes.record()
    quiet(episodes)
    assert [act for act, _ in recorded(state)] == ["degraded.begin", "degraded.end"]


def test_losses_are_a_state_while_they_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.degraded.QUIET_SECONDS", 0.05)
    fault: list[str | None] = [None]
    lost = [0]
    losses = Losses(lambda: fault[0], lambda: lost[0], "decision inputs of calls")
    assert losses() is None
    lost[0] = 3
    assert losses() == "decision inputs of calls were lost, 3 since the start"
    time.sleep(0.1)
    assert losses() is None
    fault[0] = "no disk"
    assert losses() == "no disk"


def test_a_process_tells_of_its_ledger_its_inputs_and_what_it_stores(state: State) -> None:
    sources = sources_of(state)
    assert {name: source() for name, source in sources.items()} == dict.fromkeys(
        ("ledger", "inputs", "followed", "stored")
    )


def test_inputs_that_cannot_be_kept_hold_up_no_call_and_show_everywhere() -> None:
    with OriginThread((HOST, "free.test"), script) as origin:
        policy = POLICY.format(port=origin.port, accounts=ACCOUNT.format(name="agent", limits="{}"), whole="")
        with running(policy=policy, files={"lab-ca.pem": origin.authority.pem}, secrets={"lab": SECRET}) as product:
            product.stop()
            for made in product.state.glob("inputs.sqlite*"):
                made.unlink()
            (product.state / "inputs.sqlite").mkdir()  # no database can be opened there
            product.start()
            agent = agent_of(product)
            assert agent.get("/v1/x").status == 200
            wait(lambda: [one["control"] for one in product.status()["degraded"]] == ["inputs"])
            with urlopen(f"{product.health()}/readyz", timeout=10) as answer:
                ready = json.loads(answer.read())
            assert ready["ready"]
            assert "inputs.sqlite" in ready["degraded"]["inputs"]
            assert 'exeat_degraded{control="inputs"} 1' in scraped(product)
            assert 'exeat_degraded{control="ledger"} 0' in scraped(product)
            assert "DEGRADED  inputs  since " in product.cli("status").ok().out
            (product.state / "inputs.sqlite").rmdir()
            assert agent.get("/v1/x").status == 200
            agent.close()
            wait(lambda: product.status()["degraded"] == [])
            assert 'exeat_degraded{control="inputs"} 0' in scraped(product)
            wait(lambda: len(about(product)) == 2)
            (begin, began), (end, ended) = about(product)
            assert (begin, end, began["mode"]) == ("degraded.begin", "degraded.end", "open")
            assert began["episode"] == ended["episode"]


def about(product: Product) -> list[tuple[str, dict[str, str]]]:
    acts = product.records("operator.act")
    return [(act["act"], act["detail"]) for act in acts if act["act"].startswith("degraded.")]


def scraped(product: Product) -> list[str]:
    with urlopen(f"{product.health()}/metrics", timeout=10) as answer:
        return str(answer.read().decode()).splitlines()


def wait(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
