"""proxy.py with interception: the other proxy in Python.

It installs packages of the same names as ours, so it lives in an environment of its own.
"""

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.load import Target
from benchmarks.peers.peer import Missing, Running
from benchmarks.place import Authority, Place, free_port, listens

_ENVIRONMENT = Path(".uv/peers/proxy.py")
_INSTALL = f"python3 -m venv {_ENVIRONMENT} && {_ENVIRONMENT}/bin/pip install proxy.py"


class ProxyPy:
    """One process, one acceptor, one worker."""

    name = "proxy.py"
    title = "proxy.py with interception"

    def version(self) -> str:
        program = _ENVIRONMENT / "bin/proxy"
        if not program.exists() or shutil.which("openssl") is None:
            raise Missing(f"proxy.py is not installed. {_INSTALL} (and openssl on PATH)")
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        return "proxy.py " + said.strip()

    def start(self, place: Place) -> Running:
        port = free_port()
        folder = place.folder / "proxypy"
        (folder / "certificates").mkdir(parents=True)
        authority = Authority.create("Benchmark proxy.py")
        issuer, key = folder / "issuer.pem", folder / "key.pem"
        issuer.write_bytes(authority.pem())
        key.write_bytes(authority.bundle().partition(b"-----BEGIN CERTIFICATE")[0])
        signing = folder / "signing.pem"
        signing.write_bytes(authority.leaf(["localhost"]).partition(b"-----BEGIN CERTIFICATE")[0])
        child = place.start(
            "proxypy",
            [
                str(_ENVIRONMENT / "bin/proxy"),
                "--hostname=127.0.0.1",
                f"--port={port}",
                "--num-workers=1",
                "--num-acceptors=1",
                "--log-level=ERROR",
                f"--ca-cert-file={issuer}",
                f"--ca-key-file={key}",
                f"--ca-signing-key-file={signing}",
                f"--ca-cert-dir={folder / 'certificates'}",
                f"--ca-file={place.origin_ca}",
            ],
            env={"HOME": os.fspath(folder)},
        )
        place.wait_for(child, lambda: listens(port), "proxy.py")
        return Running(child, Target(("127.0.0.1", port), f"localhost:{place.origin_port}", str(issuer)))
