"""The peers: one file each, one line here, in the order they are printed."""

from typing import Final

from benchmarks.peers.direct import Direct
from benchmarks.peers.mitmdump import Mitmdump
from benchmarks.peers.peer import Missing, Peer, Running
from benchmarks.peers.product import RECORDED, UNLIMITED, UNRECORDED
from benchmarks.peers.proxypy import ProxyPy
from benchmarks.peers.squid import Squid

__all__ = ["PEERS", "Missing", "Peer", "Running"]

PEERS: Final[tuple[Peer, ...]] = (
    Direct(),
    Squid(),
    UNRECORDED,
    UNLIMITED,
    RECORDED,
    ProxyPy(),
    Mitmdump(),
)
