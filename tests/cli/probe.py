"""Runs MODULE --help for each module named, each in a process of its own; prints as JSON what was seen of it.

The processes are forked from one that has imported no more than every command does.
"""

import contextlib
import io
import json
import os
import runpy
import sys
from typing import Any

from absl import flags

import mobile_video_jax.cli

assert mobile_video_jax.cli  # imported for all
IMPOSSIBLE = ("nan", "inf", "-inf", "1e30", "some")


def probe(module: str) -> dict[str, Any]:
    """The help, the modules imported for it, and of each numeric flag the texts of IMPOSSIBLE that it takes."""
    sys.argv = [module, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    rows = flags.FLAGS.flags_by_module_dict()
    project_flags = [flag for name, row in rows.items() if not name.startswith("absl") for flag in row]
    numbers = {flag.name: accepted_texts(flag) for flag in project_flags if flag.flag_type() in ("int", "float")}
    return {"help": out.getvalue(), "imported": sorted(sys.modules), "numbers": numbers}


def accepted_texts(flag: Any) -> list[str]:
    """The texts of IMPOSSIBLE that a flag takes."""
    result = []
    for text in IMPOSSIBLE:
        with contextlib.suppress(ValueError):
            flag.parser.parse(text)
            result.append(text)
    return result


def in_a_fork(module: str) -> dict[str, Any]:
    """`probe` in a process of its own."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        with os.fdopen(writer, "w") as file:
            json.dump(probe(module), file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        result: dict[str, Any] = json.load(file)
    os.wait()
    return result


if __name__ == "__main__":
    print(json.dumps({module: in_a_fork(module) for module in sys.argv[1:]}))
