"""The fork server: a small clean process that forks one confined child per session, and takes all of them with it.

`process` starts it. Two processes: the outer one watches the application that started it, and the keeper (`_keeper`),
process 1 of its own process namespace where there is one, forks the sessions; when the keeper ends, the kernel ends
them. Neither runs a model's code. Standard library only, started without the site packages.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from rolecraft.sandbox import _confine, _keeper, _kernel, _memory, _modules, _seccomp

_PARENT_SECONDS = 1.0  # how often the parent is looked for where there is no pidfd
_LEAVE_HUNDREDTHS = 500  # how long the keeper has for removing files
_MESSAGE = 65_536


def main(control: socket.socket) -> NoReturn:
    """Read the settings from `control`, build the place, and serve until `control` closes or the parent dies."""
    settings = json.loads(control.recv(_MESSAGE))
    _forget_the_application()
    try:
        plan, place, memory = _prepare(settings)
    except Exception as error:  # noqa: BLE001  whatever it is, the parent must be told and try another plan
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    keeper = os.fork()
    if keeper == 0:
        _keeper.Keeper(control, plan, place, memory).run()
    control.close()
    _outlive_nobody(settings["parent"], keeper)
    if memory.groups is not None:
        memory.groups.remove_all()
    os._exit(0)


def _forget_the_application() -> None:
    """Undo what a process inherits: ignored and blocked signals, the mode mask, a low number of descriptors."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.clear()
    sys.argv[:] = sys.orig_argv[:] = [""]


def _prepare(settings: dict[str, Any]) -> tuple[_confine.Plan, _confine.Place, _memory.Memory]:
    """Import what sessions share, then enter the namespaces; return what holds, and what all sessions may touch."""
    machine = os.uname().machine
    plan = _confine.Plan(
        settings["namespaces"],
        settings["switch_user"],
        settings["landlock"] and _kernel.known_machine() and _kernel.landlock_version() > 0,
        settings["seccomp"] and _kernel.known_machine() and _seccomp.supported(machine) and _kernel.has_seccomp(),
        os.getuid() == 0,
        *_confine.spare_users(),
    )
    if plan.switch_user and not plan.users:
        raise OSError(errno.EINVAL, "no spare user id here")
    imported = _modules.preload(settings["modules"], settings["search"])
    readable = _confine.readable_paths(imported) if _kernel.known_machine() else []
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("500")  # when memory runs out, sessions go before the application
    size = _confine.own_size() or 128 << 20  # while there is a /proc
    memory = _memory.Memory(None, None, 0)
    if plan.namespaces != "none":  # without process ids of its own, a session has one process
        memory = _memory.find_memory(settings["cgroup"])
        _confine.enter_namespaces(plan, readable)
    return plan._replace(cgroup=memory.groups is not None), _confine.Place(readable, [], _confine.SCRATCH, size), memory


def _outlive_nobody(parent: int, keeper: int) -> None:
    """Wait for the end of the parent or of the keeper, and see the other off."""
    poller = select.poll()
    with contextlib.suppress(OSError, AttributeError):
        poller.register(os.pidfd_open(parent), select.POLLIN)
        poller.register(os.pidfd_open(keeper), select.POLLIN)
    while os.getppid() == parent:
        if os.waitpid(keeper, os.WNOHANG)[0]:
            return
        poller.poll(_PARENT_SECONDS * 1000)
    os.kill(keeper, signal.SIGTERM)
    for _ in range(_LEAVE_HUNDREDTHS):
        if os.waitpid(keeper, os.WNOHANG)[0]:
            return
        time.sleep(0.01)
    os.kill(keeper, signal.SIGKILL)
    os.waitpid(keeper, 0)
