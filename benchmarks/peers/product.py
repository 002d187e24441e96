"""The product, run as its users run it, with everything on."""

import base64
import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import wire
from benchmarks.load import Target
from benchmarks.peers.peer import Missing, Running
from benchmarks.place import NAME, PeerFailed, Place, free_port, listens

_PROGRAM: Final = Path(sys.executable).with_name("exeat")

_POLICY: Final = """\
exeat: 1
tenant: bench
credentials: {{ttl: 1h, max_ttl: 1h}}
connections:
  saas: {{host: {name}, port: {port}, dial: "127.0.0.1:{port}", ca: {ca}, secret: saas/bench{price}}}
  other: {{host: other.example, secret: other/bench}}
accounts:
  agent:
    owners: {{accountable: ana@acme.example, system: ben@acme.example, risk: eve@acme.example}}
    stage: autonomous
{limits}    rules:
      - {{id: read, allow: {{connection: saas, methods: [GET], path: "/v1/refunds/{{id}}"}}}}
      - {{id: refund, allow: {{connection: saas, methods: [POST], path: {path}}}}}
      - {{id: other, allow: {{connection: other, methods: [GET, POST], path: /**}}}}
      - {{id: never-delete, deny: {{connection: "*", methods: [DELETE], path: /**}}}}
"""

_LIMITS: Final = {
    "price": ", price: 0.01 USD",
    "limits": """\
    limits:
      concurrency: 1000
      rate: [{connection: saas, max: 100000, per: second, burst: 100000}]
      spend: [{meter: price, max: 10000000 USD, per: day}]
""",
}
_NO_LIMITS: Final = dict.fromkeys(_LIMITS, "")


@dataclass(frozen=True, slots=True)
class Product:
    """Credential verified, rules, a rate, a concurrency cap and a spend cap, secret attached, both records durable."""

    name: str
    title: str
    up: tuple[str, ...]
    """The program whose `up` is measured."""
    more: tuple[str, ...] = ()
    """Further options of it."""
    limited: bool = True
    """Whether its policy has limits, and its connection a price."""

    def version(self) -> str:
        if not _PROGRAM.exists():
            raise Missing("exeat is not in this environment; run `make setup`")
        return "exeat " + importlib.metadata.version("exeat")

    def start(self, place: Place) -> Running:
        port = free_port()
        folder = place.folder / self.name
        folder.mkdir(mode=0o700)
        policy = folder / "policy.yaml"
        limits = _LIMITS if self.limited else _NO_LIMITS
        policy.write_text(
            _POLICY.format(name=NAME, port=place.origin_port, ca=place.origin_ca.name, path=wire.PATH, **limits)
        )
        (folder / place.origin_ca.name).write_bytes(place.origin_ca.read_bytes())
        # Relative, because the path of a Unix socket is short.
        state = os.path.relpath(folder / "state")
        self._run(state, "policy", "apply", str(policy))
        self._run(state, "secret", "set", "saas/bench", "--tenant", "bench", give=wire.SECRET.encode())
        child = place.start(
            self.name,
            [*self.up, "up", "--state", state, "--listen", f"127.0.0.1:{port}", "--health", "127.0.0.1:0", *self.more],
        )
        operators = folder / "state" / "operators.sock"
        place.wait_for(child, lambda: operators.exists() and listens(port), self.name)
        token = self._run(state, "token", "issue", "agent", "--ttl", "1h").strip()
        basic = base64.b64encode(b"agent:" + token).decode()
        return Running(
            child,
            Target(
                ("127.0.0.1", port),
                f"{NAME}:{place.origin_port}",
                str(folder / "state/keys/ca-cert.pem"),
                connect_headers=f"Proxy-Authorization: Basic {basic}\r\n".encode(),
                request_headers=b"",
            ),
        )

    def _run(self, state: str, *words: str, give: bytes = b"") -> bytes:
        done = subprocess.run([_PROGRAM, *words, "--state", state], input=give, capture_output=True, check=False)
        if done.returncode != 0:
            raise PeerFailed(f"exeat {' '.join(words[:2])}: {done.stderr.decode(errors='replace')}")
        return done.stdout


RECORDED: Final = Product("exeat", "exeat, everything on, intent and outcome durable", (str(_PROGRAM),))
UNRECORDED: Final = Product(
    "unrecorded", "the same without its ledger (only here)", (sys.executable, "-m", "benchmarks.unrecorded")
)
UNLIMITED: Final = Product("unlimited", "the same without any limits (only here)", (str(_PROGRAM),), limited=False)
