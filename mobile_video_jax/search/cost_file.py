"""The cost table as a JSON file: what a search wrote, or what was measured on a device.

    {"source": "iPhone 16 Pro Max, 3 runs", "network": "0123456789abcdef",
     "rest": {"milliseconds": 1.2, "flops": 3e9, "parameters": 5e6, "peak_bytes": 4e6},
     "choices": [{"kind": "full", "resolution": 1, "milliseconds": 9.1, ...}, ...],
     "moves": [{"before": 1, "after": 2, "milliseconds": 0.4, ...}, ...]}

Costs that are not listed are 0. A `network` that is there must be the digest of the network that is searched.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.search.costs import Costs, CostTable
from mobile_video_jax.search.space import Choice


def write_costs(table: CostTable, path: Path) -> None:
    """Writes a table, from which `read_costs` reads the same."""
    choices = [{**choice._asdict(), **costs._asdict()} for choice, costs in table.choices.items()]
    moves = [{"before": pair[0], "after": pair[1], **costs._asdict()} for pair, costs in table.moves.items()]
    head = {"source": table.source, "network": table.network}
    write_json(path, {**head, "rest": table.rest._asdict(), "choices": choices, "moves": moves})


def read_costs(path: Path, network: str = "") -> CostTable:
    """The table of a file.

    Raises UserError for a file that is no such table, a value that is no number or, but for moves, below zero, an entry
    that is there twice, and a table of another network.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON file of costs: {error}") from None
    if not isinstance(values, dict) or not values.get("choices"):
        raise UserError(f"{path} lists no 'choices': start from the costs.json that a search writes")
    of = str(values.get("network", ""))
    if of and network and of != network:
        raise UserError(f"{path} holds the costs of network {of}, this one is {network}: measure this one")
    choices: dict[Choice, Costs] = {}
    moves: dict[tuple[int, int], Costs] = {}
    for i, entry in enumerate(values["choices"]):
        choice = Choice(_text(path, f"choices[{i}]", entry, "kind"), _level(path, f"choices[{i}]", entry, "resolution"))
        _add(path, choices, choice, _costs(path, str(choice), entry))
    for i, entry in enumerate(values.get("moves", [])):
        pair = tuple(_level(path, f"moves[{i}]", entry, key) for key in ("before", "after"))
        _add(path, moves, (pair[0], pair[1]), _costs(path, f"moves[{i}]", entry, least=-math.inf))
    rest = _costs(path, "rest", values.get("rest", {}))
    return CostTable(rest, choices, moves, str(values.get("source", path)), of)


def _add(path: Path, table: dict[Any, Costs], key: Any, costs: Costs) -> None:
    if key in table:
        raise UserError(f"{path} lists {key} twice: remove one")
    table[key] = costs


def _costs(path: Path, name: str, entry: Mapping[str, Any], least: float = 0.0) -> Costs:
    values = {key: _number(path, f"{name}.{key}", entry[key], least) for key in Costs._fields if key in entry}
    return Costs(**values)


def _number(path: Path, name: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise UserError(f"{path}: {name} is {value!r}: use a finite number" + ("" if least else " from 0"))
    return float(value)


def _text(path: Path, name: str, entry: Any, key: str) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
        raise UserError(f"{path}: {name} has no {key}: give it a text")
    return str(entry[key])


def _level(path: Path, name: str, entry: Any, key: str) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{path}: {name} has no {key}: give it a whole number from 1")
    return value
