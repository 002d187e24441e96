"""Git's own smart HTTP server (`git http-backend`) behind the scripted origin, and a repository in it."""

import asyncio
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from tests.worlds.origin import Peer, Request

README = "the tools of acme\n" * 2000


class GitServer:
    """Serves every bare repository under a folder, as github.com does: `/acme/tools.git`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made = False

    def _make(self) -> None:
        work, bare = self._root / "work", self._root / "acme" / "tools.git"
        bare.parent.mkdir()
        work.mkdir()
        (work / "README").write_text(README)
        identity = ("-c", "user.name=a", "-c", "user.email=a@x.example", "-c", "init.defaultBranch=main")
        for command in (("init", "-q"), ("add", "README"), ("commit", "-q", "-m", "first")):
            subprocess.run(["git", *identity, *command], cwd=work, check=True, env=_environment())
        subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True, env=_environment())

    async def answer(self, request: Request, peer: Peer) -> None:
        """The request through CGI (RFC 3875), as a web server would hand it on."""
        if not self._made:
            self._make()
            self._made = True
        url = urlsplit(request.target)
        variables = {
            "GIT_PROJECT_ROOT": str(self._root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": request.header("content-type") or "",
            "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": request.header("content-encoding") or "",
            "GIT_PROTOCOL": request.header("git-protocol") or "",
            "REMOTE_USER": "bot",
            "REMOTE_ADDR": "127.0.0.1",
        }
        process = await asyncio.create_subprocess_exec(
            "git", "http-backend", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env=_environment() | variables,
        )  # fmt: skip
        out, _ = await process.communicate(request.body)
        head, _, body = out.partition(b"\r\n\r\n")
        fields = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"status:")]
        status = next((line[8:] for line in head.split(b"\r\n") if line.lower().startswith(b"status: ")), b"200 OK")
        await peer.send(
            b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body), b"", b""]) + body
        )


def _environment() -> dict[str, str]:
    """No configuration of the user or the machine takes part."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
