"""All commands under one name: mvj COMMAND [FLAGS], the same as python -m MODULE [FLAGS].

mvj COMMAND --help tells of a command. mvj completion bash|zsh prints a script that completes commands, flags and the
keys of a config that is named: put `source <(mvj completion bash)` into ~/.bashrc.
"""

import ast
import importlib.util
import runpy
import sys
from pathlib import Path
from typing import NoReturn

from launch.completion import SCRIPTS, completions

COMMANDS = {
    "demo": "launch.demo",
    "prepare_data": "launch.prepare_data",
    "train": "launch.train",
    "encode": "launch.encode",
    "prune": "launch.prune",
    "search": "launch.search",
    "lazy": "launch.lazy",
    "slice": "launch.slice",
    "sample": "launch.sample",
    "label": "launch.label",
    "teach": "launch.teach",
    "evaluate": "launch.evaluate",
    "compare": "launch.compare",
    "vbench": "launch.vbench",
    "ablate": "launch.ablate",
    "inspect": "launch.inspect",
    "compile": "launch.compile",
    "input": "launch.input",
    "tpu_job": "launch.tpu.job",
    "benchmark": "launch.benchmark",
    "import_weights": "launch.import_weights",
    "export": "export.run",
    "verify": "export.verify",
    "phone_estimate": "export.phone_estimate",
}
BAD_INPUT = 2


def main() -> None:
    """Runs the command that the first argument names."""
    match sys.argv[1:]:
        case [] | ["--help" | "-h" | "help"]:
            print(overview())
        case ["completion", shell] if shell in SCRIPTS:
            print(SCRIPTS[shell])
        case ["completion", *_]:
            _fail(f"name a shell: mvj completion {'|'.join(SCRIPTS)}")
        case ["complete", *words]:
            print("\n".join(completions(words, COMMANDS)))
        case [name, *arguments] if name in COMMANDS:
            sys.argv[1:] = arguments
            runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)
        case [name, *_]:
            _fail(f"'{name}' is no command: use one of {', '.join(COMMANDS)}")


def overview() -> str:
    """The commands, each with the first line of its docstring."""
    lines = [f"  {name:16}{_summary(module)}" for name, module in COMMANDS.items()]
    return f"{__doc__.strip()}\n\nCommands:\n" + "\n".join(lines)


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _summary(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin
    doc = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return doc.splitlines()[0].partition(": python -m")[0].rstrip(".")


if __name__ == "__main__":
    main()
