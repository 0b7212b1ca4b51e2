"""Tables of a study: rows for programs, and means with their deviation over seeds for people."""

import csv
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.core.revision import git_revision

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Column:
    """A measured quality of a study's groups: its key in rows and groups, its heading, and the format of its mean."""

    key: str
    heading: str
    form: str = "{:.1%}"

    def text(self, group: Row) -> str:
        """A group's mean, and deviation where there are several seeds; a dash where there is none."""
        mean, std = group[self.key]["mean"], group[self.key]["std"]
        if mean is None:
            return "–"
        return self.form.format(mean) + (f" ± {self.form.format(std)}" if group["seeds"] > 1 else "")

    def spread(self, rows: Sequence[Row]) -> Row:
        """Mean and standard deviation over rows, None where no row has a value."""
        return spread([row.get(self.key) for row in rows])


def write_tables(name: str, rows: Sequence[Row], groups: Sequence[Row], out: Path) -> None:
    """Writes table.csv with every row, and table.json with the summary of groups as well."""
    write_json(out / "table.json", {"study": name, "rows": rows, "summary": groups, "commit": git_revision()})
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["arm"]
    with replacing(out / "table.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    """Rows of one key together, in order of their first."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def spread(values: Sequence[float | None]) -> Row:
    """Mean and standard deviation, None where there is no value."""
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "std": None}
    return {"mean": float(np.mean(known)), "std": float(np.std(known, ddof=1)) if len(known) > 1 else 0.0}
