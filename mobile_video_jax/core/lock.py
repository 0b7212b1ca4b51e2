"""One writer a folder: a lock file names the process that writes, and a second one is refused."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import PARTIAL, replacing
from mobile_video_jax.core.progress import say
from mobile_video_jax.core.storage import ObjectPath

NAME = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # what network file systems without locks answer


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds FOLDER/.lock within the block; removes what writers that were killed left unfinished.

    The operating system releases the lock when the process ends, however that happens. A folder created for the lock
    alone is removed again. An object store has no locks: a live writer on this host is refused there as well, one on
    another host is only warned of. Raises UserError where another process holds the lock.
    """
    local = not isinstance(folder, ObjectPath)
    missing = [path for path in (folder, *folder.parents) if not path.exists()] if local else []
    try:
        with _held(folder / NAME, folder):
            _remove_partial(folder.rglob(f".*.{PARTIAL}") if local else ())
            yield
    finally:
        with contextlib.suppress(OSError):  # from the first that holds something
            for path in missing:
                path.rmdir()


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Gives a temporary folder to fill, which becomes `out` when the block succeeds; see `replacing`.

    The lock lies beside `out`. Raises UserError where another process makes `out`, or has just made it.
    """
    with _held(out.with_name(f".{out.name}{NAME}"), out):
        _remove_partial(() if isinstance(out, ObjectPath) else out.parent.glob(f".{out.name}.*.{PARTIAL}"))
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is not empty: name a new folder")
        with replacing(out) as temporary:
            temporary.mkdir(exist_ok=True)
            yield temporary


@contextlib.contextmanager
def _held(lock: Path, folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if isinstance(lock, ObjectPath) or not _system_lock(lock, folder, stack):
            _check_holder(lock, folder)
        lock.write_text(_this_process())
        stack.callback(lock.unlink, missing_ok=True)  # before the system's lock is released
        yield


def _system_lock(lock: Path, folder: Path, stack: contextlib.ExitStack) -> bool:
    """Locks the file until the stack closes; False where the file system has no locks.

    Raises UserError where another process holds the lock, and in a file system that takes no files, as /proc.
    """
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            raise _takes_no_files(lock.parent) from None
        try:
            file = stack.enter_context(lock.open("a"))
        except FileNotFoundError:
            if lock.parent.exists():
                raise _takes_no_files(lock.parent) from None
            continue  # the last holder has just removed the empty folder
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(folder, _holder(lock)) from None
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise
        # Between the two calls the last holder may have removed the file: what is locked then has no name.
        if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            return True


def _check_holder(lock: Path, folder: Path) -> None:
    """Goes by the file's text alone. Raises UserError for a live holder on this host; warns of one on another host."""
    holder = _holder(lock)
    if holder and holder["host"] != socket.gethostname():
        say(f"{folder} was opened by {_named(holder)}: if it still runs, end one of the two, as both would damage it")
    elif holder and _runs(holder["pid"]):
        raise _refusal(folder, holder)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return pid != os.getpid()


def _this_process() -> str:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}) + "\n"


def _holder(lock: Path) -> dict[str, Any]:
    """Host, pid and start of the process that wrote the file; empty where there is none, or it is not written yet."""
    try:
        holder = json.loads(lock.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return holder if isinstance(holder, dict) and {"host", "pid", "since"} <= holder.keys() else {}


def _named(holder: Mapping[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}" if holder else "another process"


def _takes_no_files(folder: Path) -> UserError:
    return UserError(f"{folder} takes no new files: name a folder elsewhere")


def _refusal(folder: Path, holder: Mapping[str, Any]) -> UserError:
    return UserError(f"{folder} is being written by {_named(holder)}: wait for its end or name another folder")


def _remove_partial(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
