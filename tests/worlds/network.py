"""A network of the test's own: no interface but loopback, and whatever the test adds to it.

    in_a_network_of_its_own(lambda: ...)

/run is empty and the test's own too.
Namespaces belong to a thread. What the function starts, threads and programs, is in them; the rest of the test run is
not, and nothing that is done in there reaches this machine's own network or mounts.
"""

import os
import subprocess
import threading
from collections.abc import Callable


def in_a_network_of_its_own[T](work: Callable[[], T]) -> T:
    """What the function answers, or raises, in a thread with a network and mounts of its own."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS)
            command("mount", "--make-rprivate", "/")
            # `ip netns` leaves files in /run, and the machine's own services have their sockets there.
            command("mount", "-t", "tmpfs", "test-run", "/run")
            command("ip", "link", "set", "lo", "up")
            answers.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]


def command(*words: str) -> None:
    """The command has done it; raises with what it wrote."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"


def may_have_one(*needed: str) -> bool:
    """True where root may make namespaces, and interfaces and rules in them."""
    if os.geteuid() != 0 or not hasattr(os, "unshare"):
        return False
    there = " && ".join(f"command -v {name}" for name in ("ip", *needed))
    script = f"{there} && ip link add try0 type veth peer name try1"
    return subprocess.run(["unshare", "-n", "-m", "sh", "-c", script], capture_output=True, check=False).returncode == 0
