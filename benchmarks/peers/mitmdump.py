"""mitmdump as it comes, doing nothing: the stock machinery of the engine the product takes its agent's leg from."""

import importlib.metadata
import sys
from pathlib import Path

from benchmarks.load import Target
from benchmarks.peers.peer import Missing, Running
from benchmarks.place import Place, free_port, listens


class Mitmdump:
    """From the same environment as the product."""

    name = "mitmdump"
    title = "mitmdump, stock, doing nothing"

    def version(self) -> str:
        if not self._program().exists():
            raise Missing("mitmdump is not in this environment; run `make setup`")
        return "mitmproxy " + importlib.metadata.version("mitmproxy")

    def start(self, place: Place) -> Running:
        port = free_port()
        home = place.folder / "mitmdump"
        child = place.start(
            "mitmdump",
            [
                str(self._program()),
                "--quiet",
                "--listen-host=127.0.0.1",
                f"--listen-port={port}",
                f"--set=confdir={home}",
                f"--set=ssl_verify_upstream_trusted_ca={place.origin_ca}",
            ],
        )
        issuer = home / "mitmproxy-ca-cert.pem"
        place.wait_for(child, lambda: issuer.exists() and listens(port), "mitmdump")
        return Running(child, Target(("127.0.0.1", port), f"localhost:{place.origin_port}", str(issuer)))

    @staticmethod
    def _program() -> Path:
        return Path(sys.executable).with_name("mitmdump")
