"""One writer at a time: a lock that goes with its process, however that ends.

The lock's file stays: whoever removed it could let two processes hold it at once. Where the file
system has no locks, a file that exists while a process has it is one; a process that was killed
leaves it, and the next of its machine takes it over.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a file system answers that has no locks."""


class HeldError(Exception):
    """Another process holds a lock.

    Attributes
    ----------
    owner : str
        Which one, as far as is known.
    remedy : str
        What to do, as the end of a sentence.
    """

    def __init__(self, owner: str, remedy: str) -> None:
        super().__init__(owner, remedy)
        self.owner = owner
        self.remedy = remedy


@contextmanager
def locked(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock whose file is ``path``; beside it lies ``….owner`` while it is held.

    Parameters
    ----------
    path : Path
    patience : float
        Seconds that it is waited for; less than 0 for ever.

    Raises
    ------
    HeldError
        When another process has it after that time.
    OSError
        When its file cannot be written.
    """
    owner_path = path.with_suffix(".owner")
    remedy = "Wait for it to end, or stop it"
    try:
        lock = _lock_of(path, owner_path)
        if isinstance(lock, SoftFileLock):
            remedy += f", or remove {lock.lock_file} if it has ended"
            # It looks again after it has taken away the lock of a process that is no more.
            patience = max(patience, 1.0) if patience >= 0 else patience
        lock.acquire(timeout=patience)
    except Timeout:
        raise HeldError(_owner(owner_path), remedy) from None
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    try:
        with suppress(OSError):  # it helps a message alone
            owner_path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        with suppress(OSError):
            owner_path.unlink(missing_ok=True)
        lock.release()


def _owner(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip() or "another process"
    except OSError:
        return "another process"


def _lock_of(path: Path, owner_path: Path) -> BaseFileLock:
    """Return the system's lock, or filelock's own where the file system has none.

    The two are files of their own: filelock takes an empty one for a lock that is held.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return FileLock(path)
    with owner_path.open("ab+") as asked:
        try:
            fcntl.flock(asked, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which nobody takes alone
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return SoftFileLock(path.with_name(path.name + ".soft"))
    return FileLock(path)
