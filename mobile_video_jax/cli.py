"""What every command has in common: flags, one-line errors, --help, and the last lines of stdout."""

import errno
import json
import logging as python_logging
import os
import re
import shutil
import sys
import threading
import time
import traceback
from _thread import interrupt_main
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags, logging

from mobile_video_jax.core.errors import Stopped, UserError
from mobile_video_jax.parallel.distributed import is_first, join

BAD_INPUT = 2
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


def run(main: Callable[[], None], *, distributed: bool = False) -> NoReturn:
    """Parses sys.argv, calls `main` and exits.

    The status is 0, 2 after one line `error: …` on stderr for bad input, 130 after Ctrl-C, or that of `Stopped`. Other
    exceptions are bugs and keep their traceback. A `distributed` command has a flag that joins the processes of a job.
    """
    sys.unraisablehook = _interrupt_again
    logging.use_absl_handler()  # to stderr, and without the INFO lines of absl and Orbax
    logging.set_verbosity(logging.WARNING)
    # Orbax leaves the futures of a failed save unread; the failure itself is told in our one line.
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    if distributed:
        flags.DEFINE_bool("distributed", False, "Join the processes of a job, one a host.", module_name=sys.argv[0])
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        print(_help())
        sys.exit(0)
    _parse()
    try:
        if distributed and flags.FLAGS.distributed:
            join()
        main()
    except UserError as error:
        _fail(str(error))
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        if jax.distributed.is_initialized():
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
    if not jax.distributed.is_initialized() or is_first():
        print(path)
        print(json.dumps(summary), flush=True)


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Repeats a Ctrl-C that came within a callback of the garbage collector or of JAX, where its exception is lost."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.05, interrupt_main).start()
    else:
        sys.__unraisablehook__(lost)


def _refused(error: Exception) -> str | None:
    """The line for what the system refuses because of a path or a disk; None for anything else."""
    if isinstance(error, OSError) and error.errno in REFUSED:
        return str(error)
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])  # of (source, target, reason) for each file that was not copied
    lines = [line for line in str(error).splitlines() if any(reason in line for reason in FULL)]
    return f"{lines[0][:500]}: free some space and start the same command again" if lines else None


def _leave_the_job() -> None:
    """Ends this process of a job at once. An orderly exit would wait for the others, and they for this one."""
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        traceback.print_exc()
        print(f"error: process {jax.process_index()} {GONE}", file=sys.stderr, flush=True)
        os._exit(1)


def _parse() -> None:
    """Parses the flags and, through them, runs a config file: whatever goes wrong there is bad input."""
    try:
        positional = flags.FLAGS(sys.argv)[1:]
        for flag in flags.FLAGS.get_flags_for_module(sys.argv[0]):
            if flag.flag_type() == "config object":
                if flag.value is None:
                    raise UserError(f"--{flag.name} is missing; see --help")
                flag.value.lock()  # ml_collections keeps the error of a file that does not open until its first use
    except Exception as error:
        _fail(_said_of_flags(error))
    if positional:
        _fail(f"unexpected argument '{positional[0]}'; see --help")


def _said_of_flags(error: Exception) -> str:
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    if isinstance(cause, KeyError):
        return f"the config has no key {'. '.join(cause.args[0].splitlines())}"
    text = str(error)
    if missing := re.search(r"Flag (--\w+) must have a value other than None", text):
        return f"{missing[1]} is missing; see --help"
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"{text}; see --help"
    if "Traceback (most recent call last):" in text or "Failed loading config file" in text:
        return text.strip().splitlines()[-1].removeprefix("ValueError: ").removeprefix("TypeError: ")
    return text


def _fail(message: str) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        if is_first():
            time.sleep(SECONDS_FOR_OTHERS)
        os._exit(BAD_INPUT)  # see _leave_the_job
    sys.exit(BAD_INPUT)


def _help() -> str:
    module = sys.modules["__main__"]
    return f"{(module.__doc__ or '').strip()}\n\nFlags:\n{flags.FLAGS.main_module_help()}"
