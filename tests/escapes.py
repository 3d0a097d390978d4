"""Ways out of the sandbox that were thought of: each is code, what must be seen of its failure, and its limits."""

# ruff: noqa: E501  an attempt is read best on one line

from __future__ import annotations

from dataclasses import dataclass

REFUSED = r"\Arefused (EPERM|EACCES|ENOENT|EROFS|ENOSYS|EXDEV|ENOTDIR)\n\Z"
LOST = "the session starts anew"

PRELUDE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
INTEL = os.uname().machine == "x86_64"

def tell(function, *arguments, **named):
    try:
        result = function(*arguments, **named)
    except OSError as error:
        print("refused", errno.errorcode.get(error.errno, repr(error)))
    else:
        print("ESCAPED", result)

def call(intel, arm, *arguments):
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if libc.syscall(ctypes.c_long(intel if INTEL else arm), *values) == -1:
        print("refused", errno.errorcode[ctypes.get_errno()])
    else:
        print("ESCAPED")
"""


@dataclass(frozen=True)
class Escape:
    """`code` runs after PRELUDE with CANARY (a folder that anybody may change), PARENT and PORT defined.

    `seen` must be found in what it printed and raised; "ESCAPED" must not.
    """

    name: str
    code: str
    seen: str = REFUSED
    seconds: float = 30.0
    memory_mb: int = 96
    file_mb: int = 4


def _group(
    kind: str, *rows: tuple[str, str] | tuple[str, str, str] | tuple[str, str, str, float]
) -> tuple[Escape, ...]:
    return tuple(Escape(f"{kind}: {row[0]}", *row[1:]) for row in rows)


FILES = _group(
    "files",
    ("read the password file", "tell(open, '/etc/passwd')"),
    ("read a file that anybody may read", "tell(open, CANARY + '/secret')"),
    ("read by a relative path", "tell(open, '../../../../../../../..' + CANARY + '/secret')"),
    ("read through /proc/self/root", "tell(open, '/proc/self/root' + CANARY + '/secret')"),
    ("read through /proc/self/cwd", "tell(open, '/proc/self/cwd/../../..' + CANARY + '/secret')"),
    ("read through a double slash", "tell(open, '//' + CANARY + '/./secret')"),
    ("read the shadow file", "tell(open, '/etc/shadow')"),
    ("read the keys in root's home", "tell(open, '/root/.ssh/id_rsa')"),
    ("list the root", "tell(os.listdir, '/')"),
    ("list root's home", "tell(os.listdir, '/root')"),
    ("list /home", "tell(os.listdir, '/home')"),
    ("list /tmp", "tell(os.listdir, '/tmp')"),
    ("list a folder that anybody may list", "tell(os.listdir, CANARY)"),
    ("map a file into memory", "import mmap\ntell(lambda: mmap.mmap(os.open(CANARY + '/secret', 0), 0, prot=1)[:])"),
    ("create a file", "tell(open, CANARY + '/new', 'w')"),
    ("append to a file", "tell(open, CANARY + '/secret', 'a')"),
    ("truncate by path", "tell(os.truncate, CANARY + '/secret', 0)"),
    ("truncate a file opened for reading", "tell(os.open, os.__file__, os.O_RDONLY | os.O_TRUNC)"),
    ("truncate another's file opened for reading", "tell(os.open, CANARY + '/secret', os.O_RDONLY | os.O_TRUNC)"),
    ("remove a file", "tell(os.unlink, CANARY + '/secret')"),
    ("remove a folder", "tell(os.rmdir, CANARY + '/folder')"),
    ("make a folder", "tell(os.mkdir, CANARY + '/new')"),
    ("move a file out", "open('x', 'w')\ntell(os.rename, 'x', CANARY + '/x')"),
    ("move a file in", "tell(os.rename, CANARY + '/secret', 'x')"),
    ("exchange two files", "open('x', 'w')\ncall(316, 276, -100, b'x', -100, CANARY.encode() + b'/secret', 2)"),
    ("link a file in", "tell(os.link, CANARY + '/secret', 'x')"),
    ("symlink to a file", "tell(os.symlink, CANARY + '/secret', 'x')"),
    ("symlink by number", "call(266, 36, CANARY.encode(), -100, b'x')"),
    ("change a mode", "tell(os.chmod, CANARY + '/secret', 0o600)"),
    ("change the mode of an open file", "tell(os.fchmod, os.open(os.__file__, 0), 0o777)"),
    ("change a mode by number", "call(90 if INTEL else 53, 53, *([CANARY.encode()] if INTEL else [-100, CANARY.encode()]), 0)"),
    ("change a mode by fchmodat2", "call(452, 452, -100, CANARY.encode(), 0, 0)"),
    ("change an owner", "tell(os.chown, CANARY + '/secret', 12345, 12345)"),
    ("change the owner of an open file", "tell(os.fchown, os.open(os.__file__, 0), 12345, 12345)"),
    ("change times", "tell(os.utime, CANARY + '/secret', (1, 1))"),
    ("change the times of an open file", "tell(os.utime, os.open(os.__file__, 0), (1, 1))"),
    ("set an attribute", "tell(os.setxattr, CANARY + '/secret', 'user.x', b'1')"),
    ("set the attribute of an open file", "tell(os.setxattr, os.open(os.__file__, 0), 'user.x', b'1')"),
    ("set an inode flag", "import fcntl\ntell(fcntl.ioctl, os.open(os.__file__, 0), 0x40086602, bytes(8))"),
    ("change the standard library", "tell(open, os.__file__, 'a')"),
    ("plant compiled code", "tell(open, os.path.dirname(os.__file__) + '/__pycache__/os.cpython-3.pyc', 'w')"),
    ("make a device", "tell(os.mknod, 'disk', 0o60600, os.makedev(254, 0))"),
    ("make a pipe with a name", "tell(os.mkfifo, 'pipe')"),
    ("create a file that keeps its user", "tell(os.open, 'x', os.O_CREAT | os.O_WRONLY, 0o4755)"),
    ("create a file without a name", "tell(os.open, '.', os.O_TMPFILE | os.O_RDWR)"),
    ("open memory", "tell(open, '/dev/mem', 'rb')"),
    ("open a disk", "tell(open, '/dev/vda', 'rb')"),
    ("open the terminal", "tell(open, '/dev/tty', 'r+b', buffering=0)"),
    ("write shared memory", "tell(open, '/dev/shm/x', 'w')"),
    ("change the kernel's settings", "tell(open, '/proc/sys/kernel/core_pattern', 'w')"),
    ("change a device's settings", "tell(open, '/sys/kernel/uevent_helper', 'w')"),
    ("change the root", "tell(os.chroot, '.')"),
    ("mount", "call(165, 40, b'none', b'.', b'tmpfs', 0, None)"),
    ("unmount", "call(166, 39, b'.', 2)"),
    ("pivot_root", "call(155, 41, b'.', b'.')"),
    ("open_tree", "call(428, 428, -100, b'/', 1)"),
    ("fsopen", "call(430, 430, b'tmpfs', 0)"),
    ("a handle of a file", "call(303, 264, -100, CANARY.encode(), bytes(200), bytes(8), 0)"),
    ("open by handle", "call(304, 265, -100, bytes(200), 0)"),
    ("openat2 out of reach of the filter", "call(437, 437, -100, CANARY.encode() + b'/secret', bytes(24), 24)"),
    ("climb from a folder's descriptor", "fd = os.open('.', os.O_PATH)\ntell(os.open, '../../..' + CANARY + '/secret', 0, dir_fd=fd)"),
    ("watch files", "call(294, 26, 0)"),
    ("watch file systems", "call(300, 262, 0, 0)"),
    ("ask what others have read", "tell(os.preadv, os.open(os.__file__, 0), [bytearray(1)], 0, os.RWF_NOWAIT)"),
    ("read the table of locks", "tell(open, '/proc/locks')"),
    ("merge equal pages", "import mmap\ntell(mmap.mmap(-1, 8192).madvise, mmap.MADV_MERGEABLE)"),
    ("import a file", "from importlib.machinery import SourceFileLoader as L\ntell(L('x', CANARY + '/secret.py').load_module)"),
    ("load a library", "tell(ctypes.CDLL, CANARY + '/secret.so')", r"refused OSError.*(No such file|cannot open|ermission)"),
    ("extract an archive upwards", """
import io, tarfile
buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode='w') as archive:
    link = tarfile.TarInfo('way')
    link.type, link.linkname = tarfile.SYMTYPE, CANARY
    archive.addfile(link)
    archive.addfile(tarfile.TarInfo('way/new'))
    archive.addfile(tarfile.TarInfo('../../../../..' + CANARY + '/new'))
buffer.seek(0)
tell(tarfile.open(fileobj=buffer).extractall)
""", "refused|Error"),
    ("attach a database", """
import sqlite3
sqlite3.connect(':memory:').execute('attach ? as other', (CANARY + '/new.db',))
""", "OperationalError: unable to open database"),
    ("read an installed package", "import glob\ntell(open, os.path.dirname(os.__file__) + '/site-packages/README.txt')\ntell(open, os.path.dirname(os.__file__) + '/site-packages/pip/__init__.py')",
        r"\A(refused (ENOENT|EACCES)\n){2}\Z"),
    ("a generator's file name", "import glob\nprint('found', glob.glob(CANARY + '/*') + glob.glob('/*'))", r"found \[\]"),
)  # fmt: skip

CODE = _group(
    "code",
    ("eval as sympify does", "eval(\"__import__('os').mkdir(CANARY + '/new')\")", "FileNotFoundError|PermissionError"),
    ("a pickle, as np.load reads", """
import pickle
class Run:
    def __reduce__(self):
        return os.mkdir, (CANARY + '/new',)
pickle.loads(pickle.dumps(Run()))
""", "FileNotFoundError|PermissionError"),
    ("a pickle that runs a shell", "import pickle\nprint(pickle.loads(b\"cposix\\nsystem\\n(S'touch new'\\ntR.\"))", "-1|32512"),
    ("tamper with the builtins", """
import builtins
for name in list(vars(builtins)):
    if not name.startswith('_'):
        setattr(builtins, name, None)
""", r"\A(error: .*)?\Z"),
    ("empty the modules", "sys.modules.clear()", r"\A\Z"),
    ("trace the runner", """
def spy(frame, event, argument):
    frame.f_locals.clear()
    raise RuntimeError('spied')
sys.setprofile(spy)
sys.settrace(spy)
""", "RuntimeError: spied|" + LOST),
    ("walk the frames and overwrite the runner", """
frame = sys._getframe()
while frame:
    for key in list(frame.f_locals):
        try:
            frame.f_locals[key] = None
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(1))
        except Exception:
            pass
    frame = frame.f_back
""", "."),
    ("look for the server in the garbage", """
import gc, socket
found = [item for item in gc.get_objects() if isinstance(item, socket.socket)]
for item in found:
    for text in (b'{"do": "end", "number": 1}', b'x' * 1000):
        try:
            item.send(text)
            print('ESCAPED')
        except OSError:
            pass
print('tried', len(found) >= 0)
""", "tried True"),
    ("an exception with a long text", "raise ValueError('x\\n' * 100_000)", r"\Aerror: ValueError: x x x .{900,1000}\Z"),
    ("an exception that raises", """
class Bad(BaseException):
    def __str__(self):
        raise KeyboardInterrupt
raise Bad
""", "error: Bad: its message cannot be read"),
    ("a type whose name lies", "raise type('A' * 5_000_000, (Exception,), {})('x')", r"\Aerror: A{900,1000}( \(line \d+\))?\Z"),
    ("surrogates in the output", "print('\\ud800 \\udcff'); sys.stdout.buffer.write(b'\\xff\\xfe\\x00')", r"\\ud800"),
)  # fmt: skip

PROCESSES = _group(
    "processes",
    ("fork", "tell(os.fork)"),
    ("a fork bomb", "while True:\n    os.fork()", "PermissionError"),
    ("spawn", "tell(os.posix_spawn, '/bin/true', ['true'], {})"),
    ("run a program", "import subprocess\ntell(subprocess.run, ['id'])"),
    ("run a shell", "print('status', os.system('touch ' + CANARY + '/new'))", r"status (-1|32512)"),
    ("open a shell's pipe", "tell(os.popen, 'id')"),
    ("replace the program", "tell(os.execv, '/bin/sh', ['sh', '-c', 'touch ' + CANARY + '/new'])"),
    ("replace the program by descriptor", "call(322, 281, os.open(os.__file__, 0), b'', None, None, 0x1000)"),
    ("start a terminal", "import pty\ntell(pty.fork)", "refused"),
    ("multiprocessing", "import multiprocessing\ntell(multiprocessing.Process(target=print).start)"),
    ("vfork by number", "call(58 if INTEL else 220, 220, 0x4111, 0)"),
    ("clone by number", "call(56, 220, 17, 0)"),
    ("clone into a user namespace", "call(56, 220, 0x10000011, 0)"),
    ("clone as the parent's child", "call(56, 220, 0x8011, 0)"),
    ("clone3", "call(435, 435, bytes(88), 88)"),
    ("a thread", "import threading\nthreading.Thread(target=print).start()", "can't start new thread"),
    ("a bomb of threads", """
import _thread, time
count = 0
try:
    while True:
        _thread.start_new_thread(time.sleep, (100,))
        count += 1
except RuntimeError:
    print('started', count)
""", "started 0"),
    ("kill the parent", "import signal\ntell(os.kill, PARENT, signal.SIGKILL)"),
    ("kill the server", "tell(os.kill, os.getppid(), 9)"),
    ("stop the server", "tell(os.kill, os.getppid(), 19)"),
    ("kill process 1", "tell(os.kill, 1, 9)"),
    ("kill everybody", "tell(os.kill, -1, 9)"),
    ("kill the group", "tell(os.kill, 0, 9)"),
    ("kill the parent's group", "tell(os.killpg, os.getpgid(0), 9)"),
    ("look for processes by signal 0", "print(sum(1 for pid in range(1, 3000) if pid != os.getpid() and not libc.kill(pid, 0)))", r"\A0\n"),
    ("kill a thread of the parent", "call(234, 131, PARENT, PARENT, 9)"),
    ("tkill", "call(200, 130, PARENT, 9)"),
    ("queue a signal", "call(129, 138, PARENT, 9, bytes(128))"),
    ("a descriptor of the parent", "call(434, 434, PARENT, 0)"),
    ("take the parent's descriptor", "call(438, 438, 3, 0, 0)"),
    ("have the kernel signal the parent", "import fcntl\ntell(fcntl.fcntl, 0, fcntl.F_SETOWN, PARENT)"),
    ("have the kernel signal by ioctl", "import fcntl\ntell(fcntl.ioctl, 0, 0x8901, PARENT.to_bytes(4, 'little'))"),
    ("choose the signal", "import fcntl\ntell(fcntl.fcntl, 0, 10, 9)"),
    ("signal by a timer", "call(222, 107, 0, bytes(64), bytes(8))"),
    ("trace the parent", "call(101, 117, 16, PARENT, 0, 0)"),
    ("seize the server", "call(101, 117, 0x4206, os.getppid(), 0, 0)"),
    ("be traced", "call(101, 117, 0, 0, 0, 0)"),
    ("read the parent's memory", "call(310, 270, PARENT, bytes(16), 1, bytes(16), 1, 0)"),
    ("write the parent's memory", "call(311, 271, PARENT, bytes(16), 1, bytes(16), 1, 0)"),
    ("open the parent's memory", "tell(open, f'/proc/{PARENT}/mem', 'r+b')"),
    ("open its own memory", "tell(open, '/proc/self/mem', 'r+b')"),
    ("read the parent's environment", "tell(open, f'/proc/{PARENT}/environ')"),
    ("list the parent's descriptors", "tell(os.listdir, f'/proc/{PARENT}/fd')"),
    ("read the parent's descriptor", "tell(os.readlink, f'/proc/{PARENT}/exe')"),
    ("list processes", "tell(os.listdir, '/proc')"),
    ("compare processes", "call(312, 272, os.getppid(), PARENT, 2, 0, 0)"),
    ("limit the parent", "import resource\ntell(resource.prlimit, PARENT, resource.RLIMIT_CPU, (1, 1))"),
    ("pin the parent", "tell(os.sched_setaffinity, PARENT, {0})"),
    ("slow the parent down", "tell(os.setpriority, os.PRIO_PROCESS, PARENT, 19)"),
    ("leave the group", "tell(os.setpgid, 0, 0)"),
    ("leave the session", "tell(os.setsid)"),
    ("outlive the server", "call(157, 167, 1, 0, 0, 0, 0)"),
    ("become dumpable", "call(157, 167, 4, 1, 0, 0, 0)"),
    ("relax the filter", "call(157, 167, 22, 0, 0, 0, 0)"),
    ("another filter", "call(317, 277, 1, 0, bytes(16))"),
)  # fmt: skip

KERNEL = _group(
    "kernel",
    ("become root", "tell(os.setresuid, 0, 0, 0)"),
    ("become a group", "tell(os.setresgid, 0, 0, 0)"),
    ("join groups", "tell(os.setgroups, [0])"),
    ("set the file system's user", "call(122, 151, 0)"),
    ("take capabilities", "call(126, 91, b'\\x22\\x05\\x08\\x20' + bytes(4), b'\\xff' * 24)"),
    ("unshare", "call(272, 97, 0x10000000)"),
    ("join namespaces", "call(308, 268, 0, 0)"),
    ("keyctl", "call(250, 219, 0, -3, 0)"),
    ("add_key", "call(248, 217, b'user', b'x', b'y', 1, -3)"),
    ("request_key", "call(249, 218, b'user', b'x', None, -3)"),
    ("bpf", "call(321, 280, 0, bytes(128), 128)"),
    ("perf_event_open", "call(298, 241, bytes(128), 0, -1, -1, 0)"),
    ("userfaultfd", "call(323, 282, 1)"),
    ("io_uring_setup", "call(425, 425, 4, bytes(200))"),
    ("io_setup", "call(206, 0, 4, bytes(8))"),
    ("memfd_create", "call(319, 279, b'x', 0)"),
    ("memfd_secret", "call(447, 447, 0)"),
    ("a program in memory", "tell(lambda: os.execve(os.memfd_create('x'), ['x'], {}))"),
    ("vmsplice", "call(278, 75, 1, bytes(16), 1, 0)"),
    ("modify_ldt", "call(154 if INTEL else 105, 105, 0, bytes(16), 16)"),
    ("iopl", "call(172 if INTEL else 105, 105, 3)"),
    ("personality", "call(135, 92, 0x0040000)"),
    ("load a module", "call(313, 273, 0, b'', 0)"),
    ("load a kernel", "call(320, 294, 0, 0, 0, b'', 0)"),
    ("reboot", "call(169, 142, 0xfee1dead, 672274793, 0, 0)"),
    ("name the host", "tell(__import__('socket').sethostname, 'escaped')"),
    ("set the clock", "import time\ntell(time.clock_settime, 0, 0)"),
    ("adjust the clock", "call(159, 171, bytes(208))"),
    ("read the kernel's log", "call(103, 116, 3, bytes(100), 100)"),
    ("swap", "call(167, 224, b'x', 0)"),
    ("accounting", "call(163, 89, b'x')"),
    ("quota", "call(179, 60, 0x800002, b'/dev/vda', 0, 0)"),
    ("shared memory", "call(29, 194, 1, 4096, 0o1666)"),
    ("a message queue", "call(68, 186, 1, 0o1666)"),
    ("semaphores", "call(64, 190, 1, 1, 0o1666)"),
    ("a POSIX queue", "call(240, 180, b'x', 0o102, 0o666, None)"),
    ("lock memory", "call(149, 228, 0, 4096)"),
    ("move pages", "call(279, 239, PARENT, 0, 0, 0, 0, 0)"),
    ("hang the terminal up", "call(153, 58)"),
    ("a call in the x32 numbering", "call(0x40000000 + 90, 0x40000000 + 90, CANARY.encode() + b'/secret', 0)"),
    ("a fork in the x32 numbering", "call(0x40000000 + 57, 0x40000000 + 57)"),
    ("numbers beyond the table", "for number in (-1, 340, 500, 512, 547, 1000, 1 << 30, (1 << 31) - 1): call(number, number)",
        r"\A(refused (EPERM|ENOSYS)\n)+\Z"),
    ("a number with high bits", "call((1 << 32) + 90, (1 << 32) + 53, CANARY.encode() + b'/secret', 0)"),
    ("raise a limit", "import resource\ntry:\n    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nexcept (ValueError, OSError):\n    print('refused EPERM')"),
    ("32-bit calls", """
import mmap
page = mmap.mmap(-1, 4096, prot=7)
# mov eax, 20 (getpid); int 0x80; ret
page.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3' if INTEL else b'\\x00' * 8)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print('ESCAPED', ctypes.CFUNCTYPE(ctypes.c_int)(address)())
""", r"the process ended \(signal SIG(SYS|SEGV|ILL)\)"),
)  # fmt: skip

NETWORK = _group(
    "network",
    ("tcp", "import socket\ntell(socket.socket)"),
    ("tcp 6", "import socket\ntell(socket.socket, socket.AF_INET6)"),
    ("udp", "import socket\ntell(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)"),
    ("raw", "import socket\ntell(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)"),
    ("packets", "import socket\ntell(socket.socket, 17, socket.SOCK_RAW)"),
    ("netlink", "import socket\ntell(socket.socket, 16, socket.SOCK_RAW)"),
    ("vsock", "import socket\ntell(socket.socket, 40, socket.SOCK_STREAM)"),
    ("the kernel's ciphers", "import socket\ntell(socket.socket, 38, 5)"),
    ("unix", "import socket\ntell(socket.socket, socket.AF_UNIX)"),
    ("a pair of datagrams", "import socket\ntell(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)"),
    ("connect a pair elsewhere", "import socket\na, b = socket.socketpair()\ntell(a.connect, CANARY + '/socket')"),
    ("send from a pair elsewhere", "import socket\na, b = socket.socketpair()\ntell(a.sendto, b'x', CANARY + '/socket')"),
    ("send a descriptor", "import socket\na, b = socket.socketpair()\ntell(socket.send_fds, a, [b'x'], [0])"),
    ("connect the channel elsewhere", "import socket\ntell(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(3)).connect, CANARY + '/socket')"),
    ("send a descriptor to the parent", "import socket\ntell(socket.send_fds, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(3)), [b'x'], [0])"),
    ("listen", "call(50, 201, 3, 5)"),
    ("accept", "call(43, 202, 3, 0, 0)"),
    ("set options", "call(54, 208, 3, 1, 32, bytes(4), 4)"),
    ("connect to a server on this machine", "import socket\ntell(socket.create_connection, ('127.0.0.1', PORT), 2)"),
    ("fetch a page from it", "import urllib.request\ntell(urllib.request.urlopen, f'http://127.0.0.1:{PORT}/', timeout=2)", "refused"),
    ("look up a name", "import socket\ntry:\n    print('ESCAPED', socket.getaddrinfo('example.com', 80))\nexcept socket.gaierror:\n    print('no answer')", "no answer"),
)  # fmt: skip

RESOURCES = (
    *_group(
        "memory",
        ("a list", "x = [0]\nwhile True:\n    x += x", "error: MemoryError"),
        ("bytes", "x = bytearray(1 << 40)", "error: MemoryError"),
        ("many bytes", "x = []\nwhile True:\n    x.append(bytearray(1 << 20))", "error: MemoryError"),
        ("mapped", "import mmap\nx = []\nwhile True:\n    x.append(mmap.mmap(-1, 1 << 24))", "Cannot allocate memory"),
        ("reserved", "import mmap\nmmap.mmap(-1, 1 << 45, flags=0x4022)", "Cannot allocate memory|MemoryError"),
        ("a long string", "x = 'x' * (1 << 40)", "error: MemoryError"),
        ("a large number", "x = 1 << (1 << 40)", "error: (MemoryError|OverflowError)"),
        ("a dictionary", "x = {}\nwhile True:\n    x[len(x)] = str(len(x)) * 100", "error: MemoryError"),
        ("a decompression bomb", "import zlib\nbomb = zlib.compress(bytes(1 << 22))\nx = [zlib.decompress(bomb) for _ in range(100)]", "error: MemoryError"),
    ),
    *_group(
        "descriptors",
        ("files", "x = []\nwhile True:\n    x.append(open('x', 'w'))", "Too many open files"),
        ("pipes", "x = []\nwhile True:\n    x.append(os.pipe())", "Too many open files"),
        ("pairs", "import socket\nx = []\nwhile True:\n    x.append(socket.socketpair())", "Too many open files"),
        ("what was inherited", """
found = []
for fd in range(4096):
    try:
        os.fstat(fd)
        found.append(fd)
    except OSError:
        pass
print(found)
""", r"\A\[0, 1, 2, 3\]\n\Z"),
        ("standard input", "input()", "EOFError"),
    ),
    *_group(
        "disk",
        ("a large file", "f = open('x', 'wb', buffering=0)\nfor _ in range(100):\n    f.write(bytes(1 << 20))", r"File too large|No space left|SIGXFSZ"),
        ("a file with a hole", "f = open('x', 'wb')\nf.truncate(1 << 40)", "File too large"),
        ("seek and write", "f = open('x', 'wb', buffering=0)\nf.seek(1 << 40)\nf.write(b'x')", "File too large"),
    ),
)  # fmt: skip
"""Limits that answer with an ordinary exception: the session lives on."""

ENDLESS = (
    Escape("endless: a loop", "while True: pass", "timed out", 0.5),
    Escape("endless: a loop that catches all", "while True:\n    try:\n        while True: pass\n    except BaseException: pass", "timed out", 0.5),
    Escape("endless: in C, a power", "x = 9 ** (9 ** 9)", "timed out", 0.5),
    Escape("endless: in C, a regular expression", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "timed out", 0.5),
    Escape("endless: in C, a sum", "import itertools\nsum(itertools.repeat(0))", "timed out", 0.5),
    Escape("endless: sleep", "import time\ntime.sleep(1000)", "timed out", 0.5),
    Escape("endless: signals blocked", "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass", "timed out", 0.5),
    Escape("endless: stopped", "import signal\nos.kill(os.getpid(), signal.SIGSTOP)", r"timed out|\A\Z", 0.5),
    Escape("endless: waiting for a signal", "import signal\nsignal.pause()", "timed out", 0.5),
    Escape("endless: output", "while True: print('flood')", "printed more than 16 MB|timed out", 2.0),
    Escape("endless: errors", "while True: sys.stderr.write('flood')", "printed more than 16 MB|timed out", 2.0),
    Escape("endless: bytes past the streams", "while True: os.write(1, bytes(65536))", "printed more than 16 MB|timed out", 2.0),
    Escape("endless: reading the channel", "while True: os.read(3, 1)", "timed out", 0.5),
    Escape("endless: locks", "import fcntl\nf = open('x', 'w')\nn = 0\nwhile True:\n    fcntl.lockf(f, fcntl.LOCK_EX, 1, n)\n    n += 2", "timed out|No locks", 0.5),
    Escape("endless: an exception that never tells its text", """
class Endless(Exception):
    def __str__(self):
        while True: pass
raise Endless
""", "timed out", 0.5),
    Escape("endless: an endless repr", """
class Endless:
    def __repr__(self):
        while True: pass
Endless()
""", "timed out", 0.5),
    Escape("endless: a stream that does not flush", """
class Stream:
    def write(self, text): pass
    def flush(self):
        while True: pass
sys.stdout = sys.stderr = Stream()
""", "timed out", 0.5),
    Escape("disk: many files", "for n in range(100_000): open(str(n), 'w').close()", "No space left|its files took more", 20.0),
    Escape("disk: many large files", "for n in range(1000): open(str(n), 'wb').write(bytes(1 << 20))", "No space left|its files took more", 20.0),
    Escape("disk: deep folders", "while True:\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)", "No space left|its files took more", 20.0),
    Escape("disk: hidden in a deep folder", "for _ in range(40):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\nfor n in range(1000):\n    open(str(n), 'wb').write(bytes(1 << 20))", "No space left|its files took more", 20.0),
    Escape("disk: hidden in a folder that cannot be listed", "os.mkdir('d', 0o300)\nos.chdir('d')\nfor n in range(1000):\n    open(str(n), 'wb').write(bytes(1 << 20))", "No space left|its files took more|PermissionError", 20.0),
    Escape("disk: removed but mapped", """
import mmap
kept = []
for n in range(1000):
    with open('x', 'w+b') as f:
        f.write(bytes(1 << 20))
        f.flush()
        kept.append(mmap.mmap(f.fileno(), 4096))
    os.unlink('x')
""", "No space left|PermissionError", 20.0),
    Escape("disk: replaced but mapped", """
import mmap
kept = []
for n in range(1000):
    with open(str(n), 'w+b') as f:
        f.write(bytes(1 << 20))
        f.flush()
        kept.append(mmap.mmap(f.fileno(), 4096))
    os.rename(str(n), 'x')
""", "No space left|PermissionError|its files took more", 20.0),
)  # fmt: skip
"""Attempts that somebody must stop: the session is ended, or the file system is full."""

ENDING = _group(
    "end",
    ("os._exit", "os._exit(3)", r"the process ended \(exit status 3\)"),
    ("sys.exit", "sys.exit('enough')", "error: SystemExit: enough"),
    ("KeyboardInterrupt", "raise KeyboardInterrupt", "error: KeyboardInterrupt"),
    ("GeneratorExit", "raise GeneratorExit('x')", "error: GeneratorExit: x"),
    ("SIGKILL", "os.kill(os.getpid(), 9)", r"\(signal SIGKILL\)"),
    ("SIGALRM", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\nwhile True: pass", r"\(signal SIGALRM\)"),
    ("SIGINT", "import signal\nsignal.raise_signal(signal.SIGINT)\nwhile True: pass", "error: KeyboardInterrupt"),
    ("abort", "os.abort()", r"\(signal SIGABRT\)"),
    ("segmentation fault", "ctypes.string_at(0)", r"\(signal SIGSEGV\)"),
    ("stack overflow", "sys.setrecursionlimit(1 << 30)\ndef f(x): return sorted([x], key=f)\nf(1)", LOST + "|MemoryError|RecursionError|SystemError"),
    ("deep recursion", "def f(): return f()\nf()", "error: RecursionError"),
    ("a deep expression", "eval('(' * 100_000)", "MemoryError|SyntaxError|RecursionError|" + LOST),
    ("freed memory", "ctypes.memset(id(None), 0, 16)", "."),
    ("a corrupted heap", "ctypes.memset(id(sys.modules), 255, 4096)\nimport decimal", "."),
)  # fmt: skip

CHANNEL = _group(
    "channel",
    ("garbage", "os.write(3, b'\\xff' * 1000)", "wrote to the channel"),
    ("too short", "os.write(3, b'x')", "wrote to the channel"),
    ("too long", "os.write(3, bytes(100_000))", "wrote to the channel|Message too long"),
    ("a flood", "import socket\nos.set_blocking(3, False)\nfor n in range(100_000):\n    try:\n        os.write(3, n.to_bytes(17, 'big'))\n    except OSError:\n        pass", "wrote to the channel"),
    ("an earlier step's answer", "os.write(3, (0).to_bytes(16, 'big') + b'Dnothing')", "wrote to the channel"),
    ("a later step's answer", "os.write(3, (2).to_bytes(16, 'big') + b'Dnothing')", "wrote to the channel"),
    ("another ready", "os.write(3, bytes(16) + b'R')", "wrote to the channel"),
    ("its own answer, without its nonce", "os.write(3, bytes(16) + b'Dforged')\nwhile True: pass", "wrote to the channel"),
    ("its own answer", """
frame = sys._getframe()
while frame.f_code.co_name != 'serve':
    frame = frame.f_back
os.write(3, frame.f_locals['nonce'] + b'Dforged \\xff\\xfe')
while True: pass
""", "forged", 10.0),  # the next question then waits for as long as a step may take
    ("its own end", "os.write(3, bytes(16) + b'Xforged')\nwhile True: pass", "forged"),
    ("nothing, closed", "os.close(3)", "the process ended"),
    ("nothing, shut down", "import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, 3).shutdown(2)\nwhile True: pass", "the process ended|timed out|wrote to"),
    ("everything closed", "os.closerange(0, 64)", LOST),
    ("something else in its place", "r, w = os.pipe()\nos.dup2(w, 3)\nos.dup2(w, 1)", LOST),
    ("not blocking", "os.set_blocking(3, False)\nos.set_blocking(1, False)\nos.set_blocking(0, False)", r"\A\Z|" + LOST),
    ("the next question stolen", "import signal\nsignal.signal(signal.SIGALRM, lambda *_: os.read(3, 100))\nsignal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)", "."),
    ("the secrets of the environment", "print(dict(os.environ), sys.argv, sys.orig_argv)", r"\A\{\} \[''\] \[''\]\n\Z"),
    ("the environment in C", "p = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ')\nprint([p[0]] if p else [])", r"\A\[(None)?\]\n\Z"),
)  # fmt: skip

ESCAPES = (*FILES, *CODE, *PROCESSES, *KERNEL, *NETWORK, *RESOURCES, *ENDING, *CHANNEL, *ENDLESS)
