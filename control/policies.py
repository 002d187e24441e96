"""A policy on its way from an author's files to the state: read once, checked, carried whole."""

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from control.operations import PolicyFault, PolicyRefused, PolicyText, Provenance
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import load_policy
from rules.policy.source import PolicyInvalid, PolicySource


@dataclass(frozen=True, slots=True)
class Checked:
    """A valid policy: as its files, as its source, and compiled."""

    text: PolicyText
    source: PolicySource
    compiled: PolicySet


def check_policy(path: Path) -> Checked:
    """The policy at a path is valid. Raises `PolicyRefused` with every error."""
    try:
        source = load_policy(path)
        compiled = compile_policy(source)
    except PolicyInvalid as invalid:
        raise PolicyRefused(_faults(invalid)) from invalid
    folder = path if path.is_dir() else path.parent
    files: list[tuple[str, bytes]] = []
    for file in source.files:
        content = (folder / file.name).read_bytes()
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != file.digest:
            fault = PolicyFault(file.name, 1, 1, "the file changed while it was read", "run the command again")
            raise PolicyRefused((fault,))
        files.append((file.name, content))
    if not path.is_dir():
        files.sort(key=lambda entry: entry[0] != path.name)  # the policy first, its authorities behind it
    return Checked(PolicyText(tuple(files), single=not path.is_dir()), source, compiled)


@contextmanager
def text_as_folder(text: PolicyText) -> Iterator[Path]:
    """The policy's files lie at this path, readable by us alone, until the block is left."""
    with tempfile.TemporaryDirectory(prefix="exeat-policy-") as name:
        folder = Path(name)
        for relative, content in text.files:
            target = folder / relative
            if not target.resolve().is_relative_to(folder.resolve()):
                fault = PolicyFault(relative, 1, 1, "the file lies outside the policy's folder", "move it inside")
                raise PolicyRefused((fault,))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield folder / text.files[0][0] if text.single else folder


def secrets_wanted(policy: PolicySet) -> frozenset[tuple[str, str]]:
    """Tenant and name of every secret that a connection of the policy presents."""
    return frozenset(
        (tenant.tenant, connection.binding.secret_name)
        for tenant in policy.tenants.values()
        for connection in tenant.connections.values()
        if connection.binding is not None
    )


def provenance_of(path: Path) -> Provenance:
    """What git says about the policy's folder; empty outside of a work tree or when it has changes."""
    folder = path if path.is_dir() else path.parent
    if _git(folder, "status", "--porcelain", "--", str(path.absolute())) != "":
        return Provenance()  # not committed as it is, or no work tree at all (None)
    # The commit that last touched these files, not the newest one of the repository.
    return Provenance(
        commit=_git(folder, "log", "-1", "--format=%H", "--", str(path.absolute())) or None,
        author=_git(folder, "log", "-1", "--format=%ae", "--", str(path.absolute())) or None,
    )


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _faults(invalid: PolicyInvalid) -> tuple[PolicyFault, ...]:
    return tuple(PolicyFault(e.file, e.line, e.column, e.message, e.fix) for e in invalid.errors)
