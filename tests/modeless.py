"""A file system that holds no modes, as FAT and some network mounts: all may read and write whatever is made.

It is a real one, served through FUSE by a thread of this process, over a folder that holds the contents. So
much of FUSE's protocol (7.31) is here as the commands need. They run in other processes: a file that this one
maps into memory would wait for its own thread.
"""

import ctypes
import errno
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODE = 0o777
# Sent in one message at most, bytes; the rest of the buffer is for its header.
_MESSAGE_BYTES = 2**17
_ATTRIBUTES = struct.Struct("<6Q10I")
_SIZE_IS_SET = 8
_BEYOND_RENAME = 16
_DETACH = 2


@contextmanager
def mounted(folder: Path, *, refuses: bool) -> Iterator[Path]:
    """Yield where the file system is mounted.

    Parameters
    ----------
    folder : Path
    refuses : bool
        Whether chmod fails, as on CIFS; otherwise it does nothing, as on FAT.

    Raises
    ------
    OSError
        If FUSE is not there, or this process may not mount.
    """
    contents = folder / "contents"
    place = folder / "mounted"
    contents.mkdir(parents=True)
    place.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    try:
        if libc.mount(b"modeless", os.fsencode(place), b"fuse", 0, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "the file system cannot be mounted")
        server = threading.Thread(target=_Server(device, contents, refuses).serve)
        server.start()
        try:
            yield place
        finally:
            libc.umount2(os.fsencode(place), _DETACH)
            server.join()
    finally:
        os.close(device)


class _Server:
    def __init__(self, device: int, contents: Path, refuses: bool) -> None:
        self._device = device
        self._refuses = refuses
        # Number of a node -> where its contents lie.
        self._paths = {1: str(contents)}

    def serve(self) -> None:
        while True:
            try:
                message = os.read(self._device, _MESSAGE_BYTES + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                raise
            _, operation, unique, node = struct.unpack_from("<IIQQ", message)
            handler = getattr(self, f"_{_OPERATIONS.get(operation, 'unknown')}")
            try:
                answer = handler(node, message[40:])
            except OSError as error:
                self._answer(unique, -(error.errno or errno.EIO), b"")
            else:
                if answer is not None:
                    self._answer(unique, 0, answer)

    def _answer(self, unique: int, error: int, answer: bytes) -> None:
        os.write(self._device, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)

    def _unknown(self, node: int, body: bytes) -> bytes:
        raise OSError(errno.ENOSYS, "not built")

    def _forget(self, node: int, body: bytes) -> None:
        """Take a message that has no answer."""

    def _nothing(self, node: int, body: bytes) -> bytes:
        return b""

    def _begin(self, node: int, body: bytes) -> bytes:
        return struct.pack("<4I2H2I2H8I", 7, 31, _MESSAGE_BYTES, 0, 16, 12, _MESSAGE_BYTES, 1, *[0] * 10)

    def _lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(self._child(node, body))

    def _attributes(self, node: int, body: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._described(node, self._paths[node])

    def _change(self, node: int, body: bytes) -> bytes:
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        if valid & 1 and self._refuses:
            raise OSError(errno.EPERM, "no modes here")
        if valid & _SIZE_IS_SET:
            os.truncate(self._paths[node], size)
        return self._attributes(node, body)

    def _make_folder(self, node: int, body: bytes) -> bytes:
        path = self._child(node, body[8:])
        os.mkdir(path)
        return self._entry(path)

    def _remove(self, node: int, body: bytes) -> bytes:
        path = self._child(node, body)
        os.unlink(path)
        self._gone(path)
        return b""

    def _remove_folder(self, node: int, body: bytes) -> bytes:
        os.rmdir(self._child(node, body))
        return b""

    def _rename(self, node: int, body: bytes, names: int = 8) -> bytes:
        old, new, _ = body[names:].split(b"\0", 2)
        before = self._child(node, old)
        after = self._child(struct.unpack_from("<Q", body)[0], new)
        os.rename(before, after)
        self._gone(after)
        for number, path in self._paths.items():
            if path == before or path.startswith(f"{before}/"):
                self._paths[number] = after + path[len(before) :]
        return b""

    def _rename_with_flags(self, node: int, body: bytes) -> bytes:
        return self._rename(node, body, _BEYOND_RENAME)

    def _open(self, node: int, body: bytes) -> bytes:
        return self._opened(self._paths[node], struct.unpack_from("<I", body)[0] & ~os.O_EXCL)

    def _create(self, node: int, body: bytes) -> bytes:
        path = self._child(node, body[16:])
        opened = self._opened(path, struct.unpack_from("<I", body)[0] | os.O_CREAT)
        return self._entry(path) + opened

    def _opened(self, path: str, flags: int) -> bytes:
        # The kernel has found out by itself where to append.
        return struct.pack("<QII", os.open(path, flags & ~os.O_APPEND), 0, 0)

    def _read(self, node: int, body: bytes) -> bytes:
        number, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(number, size, offset)

    def _write(self, node: int, body: bytes) -> bytes:
        number, offset, size = struct.unpack_from("<QQI", body)
        return struct.pack("<II", os.pwrite(number, body[40 : 40 + size], offset), 0)

    def _close(self, node: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def _room(self, node: int, body: bytes) -> bytes:
        return struct.pack("<5Q4I6I", *[2**20] * 5, 4096, 255, 4096, *[0] * 7)

    def _open_folder(self, node: int, body: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0)

    def _list(self, node: int, body: bytes) -> bytes:
        _, first, size = struct.unpack_from("<QQI", body)
        listed = b""
        for number, name in enumerate(sorted(os.listdir(self._paths[node]))[first:], first + 1):
            text = os.fsencode(name)
            entry = struct.pack("<QQII", number, number, len(text), 0) + text
            entry += b"\0" * (-len(entry) % 8)
            if len(listed) + len(entry) > size:
                break
            listed += entry
        return listed

    def _gone(self, path: str) -> None:
        """Have the nodes of a file that is not there any more stand for none."""
        self._paths |= {number: f"{path}.gone" for number, other in self._paths.items() if other == path}

    def _child(self, node: int, name: bytes) -> str:
        return os.path.join(self._paths[node], os.fsdecode(name.split(b"\0", 1)[0]))

    def _entry(self, path: str) -> bytes:
        os.lstat(path)
        numbers = [number for number, other in self._paths.items() if other == path]
        node = numbers[0] if numbers else max(self._paths) + 1
        self._paths[node] = path
        return struct.pack("<4QII", node, 0, 0, 0, 0, 0) + self._described(node, path)

    def _described(self, node: int, path: str) -> bytes:
        about = os.lstat(path)
        mode = stat.S_IFMT(about.st_mode) | MODE
        times = [int(about.st_atime), int(about.st_mtime), int(about.st_ctime), 0, 0, 0]
        owner = [os.getuid(), os.getgid(), 0, 4096, 0]
        return _ATTRIBUTES.pack(node, about.st_size, about.st_blocks, *times, mode, 1, *owner)


_OPERATIONS = {
    1: "lookup",
    2: "forget",
    3: "attributes",
    4: "change",
    9: "make_folder",
    10: "remove",
    11: "remove_folder",
    12: "rename",
    14: "open",
    15: "read",
    16: "write",
    17: "room",
    18: "close",
    20: "nothing",
    25: "nothing",
    26: "begin",
    27: "open_folder",
    28: "list",
    29: "nothing",
    30: "nothing",
    35: "create",
    36: "forget",
    42: "forget",
    45: "rename_with_flags",
}
