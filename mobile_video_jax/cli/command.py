"""A command from its arguments to its exit status."""

import errno
import json
import logging as python_logging
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging

from mobile_video_jax.cli.config import ConfigFlag, split_keys
from mobile_video_jax.cli.help import help_text
from mobile_video_jax.core.errors import BAD_INPUT, Stopped, UserError

INTERRUPTED = 130
# The first process of a job holds its coordinator. Those that refuse the same input leave before it.
SECONDS_FOR_OTHERS = 5
GONE = "cannot go on, as above or because another has gone: start the job again, it goes on from what is saved"
# What the system refuses because of a path or a disk that the user can change.
REFUSED = tuple(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG", "EEXIST", "ENOTDIR", "EISDIR", "ENAMETOOLONG")
)
# What libraries with exceptions of their own say of a disk that takes no more.
FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
HELP = {"--help", "-help", "-h"}


def run(
    main: Callable[..., None],
    *,
    config: ConfigFlag | None = None,
    distributed: bool = False,
    positional: bool = False,
) -> NoReturn:
    """Reads sys.argv, calls `main` and exits.

    The status is 0, 2 after one line `error: …` on stderr for bad input, 130 after Ctrl-C, or that of `Stopped`. Other
    exceptions are bugs and keep their traceback. A `distributed` command has a flag that joins the processes of a job;
    `main` of a `positional` one takes the arguments that belong to no flag.
    """
    sys.unraisablehook = _heed_unraisable
    logging.use_absl_handler()  # to stderr, and without the INFO lines of absl and Orbax
    logging.set_verbosity(logging.WARNING)
    # Orbax logs the tracebacks of a failed save and does not read its futures; our one line reports the failure.
    logging.get_absl_logger().addFilter(_is_no_error_of_orbax)
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    python_logging.getLogger("gcsfs").setLevel(python_logging.CRITICAL)  # its tracebacks of a network that is not there
    if distributed:
        flags.DEFINE_bool("distributed", False, "Join the processes of a job, one a host.", module_name=sys.argv[0])
    arguments = _read_arguments(config, positional)
    try:
        if distributed and flags.FLAGS.distributed:
            from mobile_video_jax.parallel.distributed import join

            join()
        main(*arguments)
    except UserError as error:
        _fail(str(error))
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        if _in_a_job():
            os._exit(INTERRUPTED)  # see _leave_the_job
        sys.exit(INTERRUPTED)
    except Exception as error:
        if refusal := _refused(error):
            _fail(refusal)
        _leave_the_job()
        raise
    sys.exit(0)


def finish(path: Path, summary: dict[str, Any]) -> None:
    """Prints the result's path and the summary as the final line of JSON; of several processes the first does."""
    if not _in_a_job() or _jax().process_index() == 0:
        print(path)
        print(json.dumps(summary), flush=True)


def _read_arguments(config: ConfigFlag | None, positional: bool) -> list[str]:
    """Reads the flags and the config, and returns what is neither. --help and --print_config end the process."""
    wants_help = bool(HELP & set(sys.argv))
    lenient = wants_help or bool(config and {"--print_config", "-print_config"} & set(sys.argv))
    flags, keys = split_keys(sys.argv) if config else (sys.argv, [])
    try:
        arguments = _read_flags([argument for argument in flags if argument not in HELP], lenient=lenient)
        if arguments and not positional:
            raise UserError(f"unexpected argument '{arguments[0]}'; see --help")
        if config:
            config.read(keys)
    except Exception as error:
        if not wants_help:
            _fail(_told(error))
    if wants_help:
        print(help_text(config))
        sys.exit(0)
    if config and config.show.value:
        print(config.as_yaml(), end="")
        sys.exit(0)
    return arguments


def _read_flags(arguments: Sequence[str], *, lenient: bool) -> list[str]:
    """Reads the flags and returns what is none; a `lenient` reader does without the required ones."""
    flags.FLAGS.set_gnu_getopt()  # flags may follow other arguments
    try:
        return flags.FLAGS(arguments)[1:]
    except flags.IllegalFlagValueError:
        if lenient and flags.FLAGS.is_parsed():
            return []
        raise


def _told(error: Exception) -> str:
    text = str(error)
    if missing := re.search(r"Flag (--\w+) must have a value other than None", text):
        return f"{missing[1]} is missing; see --help"
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"{text}; see --help"
    return re.sub(r"\('Non-boolean argument to boolean flag', .*\)", "use true or false", text)


def _is_no_error_of_orbax(record: python_logging.LogRecord) -> bool:
    return record.levelno < python_logging.ERROR or "/orbax/checkpoint/" not in record.pathname


def _heed_unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Repeats a Ctrl-C that came within a callback of the garbage collector or of JAX, where its exception is lost.

    Exceptions of TensorStore's threads after a failed save, which has been reported, are dropped; others are printed.
    """
    if lost.exc_type is KeyboardInterrupt:
        # A signal to the main thread, unlike _thread.interrupt_main, also ends a wait there.
        threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    elif str(lost.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(lost)


def _refused(error: Exception) -> str | None:
    """The line for what the system refuses because of a path or a disk; None for anything else."""
    if (
        isinstance(error, OSError)
        and error.errno in (errno.EEXIST, errno.ENOTDIR)
        and not os.path.isdir(error.filename)
    ):
        return f"{error.filename} is a file or lies in one: name a folder"
    if isinstance(error, IsADirectoryError):
        return f"{error.filename2 or error.filename} is a folder: name a file"
    text: str | None
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        text = str(error.args[0][0][-1])  # of (source, target, reason) for each file that was not copied
    elif isinstance(error, OSError) and error.errno in REFUSED:
        text = str(error)
    else:
        text = next((line[:500] for line in str(error).splitlines() if _is_full(line)), None)
    return f"{text}: free some space and start the same command again" if text and _is_full(text) else text


def _is_full(message: str) -> bool:
    return any(reason in message for reason in FULL)


def _jax() -> Any:
    return sys.modules.get("jax")


def _in_a_job() -> bool:
    """True where JAX has joined the processes of a job; commands that need no JAX do not import it."""
    return _jax() is not None and _jax().distributed.is_initialized()


def _leave_the_job() -> None:
    """Ends this process of a job at once. An orderly exit would wait for the others, and they for this one."""
    if _in_a_job() and _jax().process_count() > 1:
        traceback.print_exc()
        print(f"error: process {_jax().process_index()} {GONE}", file=sys.stderr, flush=True)
        os._exit(1)


def _fail(message: str) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr, flush=True)
    if _is_full(message):
        sys.stdout.flush()
        os._exit(BAD_INPUT)  # threads of TensorStore would print tracebacks of their failed writes while Python ends
    if _in_a_job():
        if _jax().process_index() == 0:
            time.sleep(SECONDS_FOR_OTHERS)
        os._exit(BAD_INPUT)  # see _leave_the_job
    sys.exit(BAD_INPUT)
