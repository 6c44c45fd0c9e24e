"""Syncs files to disk beside the event loop: by the kernel where it offers that, else by a thread.

A thread must have the interpreter to itself for a moment before and after each sync, and a busy event loop lets go of
it late. Measured side by side in one process (docs/decisions/0004-kernel-syncs.md): a third of the CPU, and with a busy
loop a fourteenth of the time. Linux' asynchronous I/O (io_submit(2) with IOCB_CMD_FDSYNC, since kernel 4.18) syncs in a
kernel worker and tells an eventfd, which the event loop watches like a socket.
"""

import asyncio
import ctypes
import errno
import os
import platform
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

from chassis.log import logger

# Files in one round: a round has one or two, more only when a disk that was full lets go.
FILES_PER_ROUND_MAX = 64

_log = logger(__name__)

OnDone = Callable[[OSError | None], None]


class DiskSync(Protocol):
    """One round at a time; `on_done` is called on the event loop with the first failure of the round, or None."""

    def start(self, files: Sequence[int]) -> None:
        """Syncs the data of open files."""
        ...

    def close(self) -> None:
        """Waits for the round that runs. `on_done` is not called any more."""
        ...


def open_disk_sync(on_done: OnDone) -> DiskSync:
    """The best that this machine offers."""
    try:
        return KernelSync(on_done)
    except OSError as error:
        _log.info("the kernel does not sync by itself; a thread does", reason=str(error))
        return ThreadSync(on_done)


class ThreadSync:
    """By a thread that touches nothing but the files that it is given."""

    def __init__(self, on_done: OnDone) -> None:
        self._on_done = on_done
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[list[int] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="spool-sync", daemon=True)
        self._thread.start()

    def start(self, files: Sequence[int]) -> None:
        self._jobs.put(list(files))

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()
        self._on_done = _ignore

    def _work(self) -> None:
        while (files := self._jobs.get()) is not None:
            failure = None
            try:
                for fd in files:
                    os.fdatasync(fd)
            except OSError as error:
                failure = error
            self._loop.call_soon_threadsafe(self._tell, failure)

    def _tell(self, failure: OSError | None) -> None:
        self._on_done(failure)


def _ignore(_failure: OSError | None) -> None:
    return None


# Numbers of io_setup, io_destroy, io_getevents, io_submit (arch/*/entry/syscalls in Linux; stable for ever).
_SYSCALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_IOCB_CMD_FDSYNC = 3
_IOCB_FLAG_RESFD = 1
# struct iocb of linux/aio_abi.h: data, key, rw_flags, opcode, reqprio, fd, buf, nbytes, offset, reserved, flags, resfd.
_IOCB = struct.Struct("<QIIHhIQQqQII")
# struct io_event: data, obj, res, res2.
_IO_EVENT = struct.Struct("<QQqq")


class KernelSync:
    """By the kernel.

    Raises:
        OSError: not on Linux, an unknown processor, forbidden by a sandbox, or an old kernel.
    """

    def __init__(self, on_done: OnDone) -> None:
        if sys.platform != "linux" or platform.machine() not in _SYSCALLS or sys.byteorder != "little":
            raise OSError(errno.ENOSYS, "asynchronous sync is known on Linux for x86_64 and aarch64 only")
        self._on_done = on_done
        self._setup, self._destroy, self._getevents, self._submit = _SYSCALLS[platform.machine()]
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._call(self._setup, ctypes.c_uint(FILES_PER_ROUND_MAX), ctypes.byref(self._context))
        self._requests = ctypes.create_string_buffer(_IOCB.size * FILES_PER_ROUND_MAX)
        first = ctypes.addressof(self._requests)
        self._pointers = (ctypes.c_void_p * FILES_PER_ROUND_MAX)(
            *(first + _IOCB.size * index for index in range(FILES_PER_ROUND_MAX))
        )
        self._events = ctypes.create_string_buffer(_IO_EVENT.size * FILES_PER_ROUND_MAX)
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._running = 0
        self._failure: OSError | None = None
        try:
            self._try_it()
        except OSError:
            self._release()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._eventfd, self._on_event)

    def start(self, files: Sequence[int]) -> None:
        assert not self._running, "one round at a time"
        self._failure = None
        batch = files[:FILES_PER_ROUND_MAX]
        for index, fd in enumerate(batch):
            offset = index * _IOCB.size
            _IOCB.pack_into(
                self._requests, offset, 0, 0, 0, _IOCB_CMD_FDSYNC, 0, fd, 0, 0, 0, 0, _IOCB_FLAG_RESFD, self._eventfd
            )
        try:
            self._running = self._call(self._submit, self._context, ctypes.c_long(len(batch)), self._pointers)
        except OSError as error:
            if error.errno != errno.EAGAIN:  # EAGAIN: the kernel has no room now, so it is done here
                self._failure = error
        try:
            for fd in () if self._failure else files[self._running :]:
                os.fdatasync(fd)
        except OSError as error:
            self._failure = error
        if not self._running:
            self._loop.call_soon(self._tell)

    def close(self) -> None:
        self._loop.remove_reader(self._eventfd)
        self._on_done = _ignore
        self._release()

    def _try_it(self) -> None:
        """One sync of a file in memory: an old kernel says EINVAL."""
        fd = os.memfd_create("tollgate-sync")
        try:
            _IOCB.pack_into(self._requests, 0, 0, 0, 0, _IOCB_CMD_FDSYNC, 0, fd, 0, 0, 0, 0, 0, 0)
            self._call(self._submit, self._context, ctypes.c_long(1), self._pointers)
            self._call(self._getevents, self._context, ctypes.c_long(1), ctypes.c_long(1), self._events, None)
            result = _IO_EVENT.unpack_from(self._events)[2]
            if result < 0:
                raise OSError(-result, os.strerror(-result))
        finally:
            os.close(fd)

    def _on_event(self) -> None:
        try:
            os.eventfd_read(self._eventfd)
        except BlockingIOError:
            return
        count = self._call(
            self._getevents, self._context, ctypes.c_long(0), ctypes.c_long(FILES_PER_ROUND_MAX), self._events, None
        )
        for index in range(count):
            result = _IO_EVENT.unpack_from(self._events, index * _IO_EVENT.size)[2]
            if result < 0:
                self._failure = self._failure or OSError(-result, os.strerror(-result))
        self._running -= count
        if count and not self._running:
            self._tell()

    def _tell(self) -> None:
        self._on_done(self._failure)

    def _release(self) -> None:
        self._syscall(self._destroy, self._context)  # waits for what runs
        os.close(self._eventfd)

    def _call(self, number: int, *arguments: object) -> int:
        result: int = self._syscall(ctypes.c_long(number), *arguments)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result
