"""What the processes of a fleet have in common with one that is alone, made for several."""

from pathlib import Path
from typing import Final

from control.fleet.plan import Plan
from control.sequencing import Identity, RemoteLedger, as_control
from control.sequencing.wire import SOCKET_NAME as LEDGER_SOCKET
from control.stores.redis.place import Place
from control.stores.redis.store import Degraded, RedisReservations
from proxy.engine.operator_certificate import OperatorCertificate

__all__ = ["LEDGER_SOCKET", "as_control"]

WORKERS_SOCKET: Final = "workers.sock"


async def ledger_of(plan: Plan, identity: Identity) -> RemoteLedger:
    """The ledger that the sequencer writes, on the running loop."""
    return await RemoteLedger.join(Path(plan.state), identity)


def place_of(plan: Plan) -> Place:
    """Where the counters are. Raises `RedisRefused`."""
    return Place.parse(
        plan.redis,
        auth_file=None if plan.redis_auth is None else Path(plan.redis_auth),
        ca_file=None if plan.redis_ca is None else Path(plan.redis_ca),
    )


async def shared_counters(plan: Plan, worker: str, on_degraded: Degraded | None = None) -> RedisReservations:
    """The counters that all share, started. Raises `RedisRefused`."""
    store = RedisReservations(place_of(plan), worker, on_degraded=on_degraded)
    await store.start()
    return store


def certificate_of(plan: Plan) -> OperatorCertificate | None:
    """The operator's own certificate for TLS listeners, read anew."""
    if plan.chain is None or plan.key is None:
        return None
    return OperatorCertificate(Path(plan.chain), Path(plan.key), plan.names)
