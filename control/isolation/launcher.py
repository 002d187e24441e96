"""Inside: a small process that makes the namespaces and waits in them for the program. Standard library only.

Speaks with `control.isolation.program` over one socket, a line of JSON each way:

(1) <- what to hide and whom to become, or that no namespace is wanted
(2) -> the relay's listening socket, made inside; or what could not be done
(3) <- the program and its environment
(4) the program runs; this process ends with its exit code, 128 and the number for a signal

Whatever fails, fails before (3): a program is never started with less than was asked for.
"""

import errno
import json
import os
import select
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Any, NoReturn

from control.isolation import kernel, system_calls

NOT_FOUND = 127
NOT_EXECUTABLE = 126
FAILED = 3
"""As the command line's own code for what could not be run."""
HIDDEN_FOLDERS = ("/run", "/var/run")
"""Where a machine's services have their sockets."""
SHARED_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - looked through, not written to
"""Where programs of all users put theirs, most often one folder deep."""
SHARED_DEPTH = 2


class StepFailed(Exception):
    """One step could not be done; `step` is the word that the other side has a cure for."""

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(step)
        self.step, self.error = step, error


class _Step:
    """OSErrors of the block become `StepFailed`."""

    def __init__(self, step: str) -> None:
        self.step = step

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise StepFailed(self.step, error) from error


def main() -> NoReturn:
    """The program has run; never returns."""
    kernel.die_with_parent(signal.SIGKILL)
    with socket.socket(fileno=int(sys.argv[2])) as channel:
        if os.getppid() != int(sys.argv[3]):
            os._exit(FAILED)  # the parent ended before we asked to be told
        lines = channel.makefile("r", encoding="utf-8")
        plan = json.loads(lines.readline())
        listeners: list[socket.socket] = []
        try:
            if plan["isolate"]:
                listeners.append(_enter(plan))
        except StepFailed as failed:
            answer = {"step": failed.step, "errno": failed.error.errno, "error": str(failed.error)}
            channel.sendall(json.dumps(answer).encode() + b"\n")
            os._exit(FAILED)
        socket.send_fds(channel, [b"\n"], [listener.fileno() for listener in listeners])
        for listener in listeners:
            listener.close()
        rest = lines.readline()
        if not rest:
            os._exit(FAILED)  # nobody wants the program any more
        program = json.loads(rest)
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    watched, held = os.pipe()
    init = os.fork()
    if init == 0:
        kernel.die_with_parent(signal.SIGKILL)
        os.close(held)
        if select.select([watched], [], [], 0)[0]:
            os._exit(FAILED)  # our parent, who holds the other end, ended before we asked to be told
        _init(plan, program)
    os._exit(_wait_for(init))


# The namespaces


def _enter(plan: dict[str, Any]) -> socket.socket:
    """This process is in the namespaces; a listening socket of the new network comes back."""
    uid, gid = os.geteuid(), os.getegid()
    sockets = _bound_sockets()
    with _Step("working folder"):
        folder_of_work = os.getcwd()
    kinds = os.CLONE_NEWNET | os.CLONE_NEWNS | os.CLONE_NEWPID | os.CLONE_NEWIPC
    if plan["become"] is None:
        with _Step("user namespace"):
            os.unshare(os.CLONE_NEWUSER)
            # user_namespaces(7): without this an unprivileged process may not write gid_map.
            Path("/proc/self/setgroups").write_text("deny", encoding="utf-8")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="utf-8")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="utf-8")
    with _Step("namespaces"):
        os.unshare(kinds)
    with _Step("loopback"):
        kernel.loopback_up()
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    with _Step("mounts"):
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        for path in sockets:
            if not path.startswith(tuple(f"{folder}/" for folder in HIDDEN_FOLDERS)):
                _cover(path)
        for folder in (*plan["hide"], *HIDDEN_FOLDERS):
            if os.path.isdir(folder) and not os.path.islink(folder):
                _hide(folder)
    with _Step("working folder"):
        # Entered anew: the one we are in may be covered now, and relative paths would lead below the cover.
        os.chdir(folder_of_work)
    return listener


def _cover(path: str) -> None:
    """Nothing can be reached through this socket. One in a folder that we may not search is out of the program's
    reach as well: it has the same uid."""
    try:
        kernel.mount("/dev/null", path, None, kernel.MS_BIND)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.ENOENT):
            raise


def _hide(folder: str) -> None:
    flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("exeat-hidden", folder, "tmpfs", flags, "mode=0555,size=4k")


def _bound_sockets() -> list[str]:
    """Unix sockets in the file system that somebody has bound in the network we come from (proc(5), net/unix).

    The kernel lists the path as it was given to bind. It says nothing of the folder that a relative one started from,
    so those of all processes that we see are tried; and nothing of a name that the socket got later, so where one is
    gone its folder is looked through, as are the folders where everybody leaves sockets.
    """
    found: set[str] = set()
    folders = set(SHARED_FOLDERS)
    relative: set[str] = set()
    for line in Path("/proc/net/unix").read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]:
        for path in line.split(maxsplit=7)[7:]:
            if path.startswith("@"):
                continue  # abstract: it stays in its network namespace
            if not path.startswith("/"):
                relative.add(path)
            elif _is_socket(path):
                found.add(path)
            else:
                folders.add(os.path.dirname(path))
    if relative:
        for start in _working_folders():
            found.update(path for name in relative if _is_socket(path := os.path.normpath(os.path.join(start, name))))
    for folder in folders:
        found.update(_sockets_in(folder, SHARED_DEPTH if folder in SHARED_FOLDERS else 1))
    return sorted(found)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False  # gone, or where we may not look; then the program may not either


def _working_folders() -> set[str]:
    found = set()
    for process in os.listdir("/proc"):
        if process.isdigit():
            try:
                found.add(os.readlink(f"/proc/{process}/cwd"))
            except OSError:
                continue  # ended, or another user's
    return found


def _sockets_in(folder: str, depth: int) -> list[str]:
    """The sockets of a folder, and of those below it as deep as is said; links are not followed."""
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found += _sockets_in(entry.path, depth - 1) if depth > 1 else []
                elif _is_socket(entry.path):
                    found.append(entry.path)
    except OSError:
        return found  # gone, or where we may not look
    return found


# Process 1 of the new process namespace, and the program

PASSED_ON = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})
SI_KERNEL = 0x80
"""sigaction(2): sent by the kernel. A terminal's signals have gone to the program as well."""


def _init(plan: dict[str, Any], program: dict[str, Any]) -> NoReturn:
    try:
        kernel.unreadable()
        if os.getpid() == 1:
            kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        running = os.fork()
        if running == 0:
            _program(plan, program)
    except OSError as error:
        _complain(f"the program could not be started in its namespaces: {error}")
        os._exit(FAILED)
    # When this process ends the kernel ends every other one in the namespace (pid_namespaces(7)).
    os._exit(_wait_for(running))


def _wait_for(child: int) -> int:
    """The child has ended; its exit code, or 128 and the signal. Orphans are reaped, signals passed on meanwhile."""
    while True:
        told = signal.sigwaitinfo(PASSED_ON | {signal.SIGCHLD})
        if told.si_signo != signal.SIGCHLD:
            if told.si_code != SI_KERNEL:
                os.kill(child, told.si_signo)
            continue
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if ended == 0:
                break
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _program(plan: dict[str, Any], program: dict[str, Any]) -> NoReturn:
    become, isolate = plan["become"], plan["isolate"]
    if isolate:
        kernel.drop_bounding_set()
        kernel.new_session_keyring(system_calls.NUMBERS[os.uname().machine].keyctl)
    if become is not None:
        os.setgroups([])
        os.setresgid(become[1], become[1], become[1])
        os.setresuid(become[0], become[0], become[0])
    if isolate:
        kernel.drop_capabilities()
        kernel.no_new_privileges()
        kernel.filter_system_calls(system_calls.for_this_machine())
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them; the program expects the system's defaults
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON | {signal.SIGCHLD})
    environment = program["environment"]
    command = program["command"]
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is the point
    except FileNotFoundError:
        _complain(f"{command[0]}: no such program")
        os._exit(NOT_FOUND)
    except OSError as error:
        _complain(f"{command[0]}: {error.strerror}")
        os._exit(NOT_EXECUTABLE)


def _complain(text: str) -> None:
    os.write(2, f"exeat: {text}\n".encode())
