"""Completion of commands, flags and config keys in bash and zsh, by asking mvj itself."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

BASH = """\
_mvj() {
  local line="${COMP_LINE:0:COMP_POINT}"
  COMPREPLY=($(compgen -W "$(mvj complete ${line% *} 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
  [[ "$COMPREPLY" == *= ]] && compopt -o nospace
}
complete -o default -F _mvj mvj"""
ZSH = f"autoload -U +X bashcompinit && bashcompinit\n{BASH}"
SCRIPTS = {"bash": BASH, "zsh": ZSH}


def completions(words: Sequence[str], commands: Mapping[str, str]) -> list[str]:
    """The words that may follow `mvj ...`: commands, or the flags of the one named and the keys of its config."""
    match words:
        case [_]:
            return [*commands, "completion"]
        case [_, "completion"]:
            return list(SCRIPTS)
        case [_, name, *arguments] if name in commands:
            return _flags([sys.executable, "-m", commands[name], *arguments, "--help"])
    return []


def _flags(command: list[str]) -> list[str]:
    text = subprocess.run(command, capture_output=True, text=True).stdout
    listed = re.findall(r"^ +--(\[no\])?([\w.-]+)", text, re.M)
    return [f"--{name}" if switch else f"--{name}=" for switch, name in listed]
