"""This interpreter and this clone where any user of the machine may read them, whoever owns their folders.

    with for_anybody() as ours:
        subprocess.run([*ours.seen, "exeat", "run", "--user", "nobody", "--", *ours.python, "-m", "control.cli"])

Nothing is copied and no mode is changed: `seen` starts a program in a mount namespace of its own, in which they are
mounted below a folder in /tmp. Root only.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ours:
    """What to put in front of a command, and how that command is to call Python."""

    seen: tuple[str, ...]
    python: tuple[str, ...]

    @property
    def exeat(self) -> tuple[str, ...]:
        return (*self.python, "-m", "control.cli")


@contextmanager
def for_anybody() -> Iterator[Ours]:
    """Both, until the block is left."""
    folder = Path(tempfile.mkdtemp(prefix="exeat-any-"))
    folder.chmod(0o755)
    places = {"python": Path(sys.base_prefix), "site": Path(sysconfig.get_path("purelib")), "clone": ROOT}
    for name in places:
        (folder / name).mkdir()
    mounts = " && ".join(f"mount --bind '{place}' '{folder}/{name}'" for name, place in places.items())
    binary = Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
    try:
        yield Ours(
            ("unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh"),
            (
                "env",
                f"PYTHONHOME={folder}/python",
                f"PYTHONPATH={folder}/clone:{folder}/site",
                f"LD_LIBRARY_PATH={folder}/python/lib",
                "PYTHONDONTWRITEBYTECODE=1",
                str(folder / "python" / binary),
            ),
        )
    finally:
        shutil.rmtree(folder)


def may_mount() -> bool:
    """True where this process may make such a namespace."""
    done = (
        subprocess.run(["unshare", "-m", "mount", "--bind", "/usr", "/mnt"], capture_output=True, check=False)
        if shutil.which("unshare")
        else None
    )
    return done is not None and done.returncode == 0
