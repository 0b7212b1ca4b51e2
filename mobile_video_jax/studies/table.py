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
        """A group's mean, with the deviation over seeds or one seed's interval; a dash where there is none."""
        figures = group[self.key]
        if figures["mean"] is None:
            return "–"
        mean = self.form.format(figures["mean"])
        if group["seeds"] > 1:
            return f"{mean} ± {self.form.format(figures['std'])}"
        if figures.get("low") is None:
            return mean
        return f"{mean} ({self.form.format(figures['low'])} to {self.form.format(figures['high'])})"

    def spread(self, rows: Sequence[Row]) -> Row:
        """Mean and standard deviation over rows, None where no row has a value.

        Of one row also the ends of its interval, where it has them under the keys with _low and _high behind.
        """
        ends = {end: rows[0].get(f"{self.key}_{end}") for end in ("low", "high")} if len(rows) == 1 else {}
        return spread([row.get(self.key) for row in rows]) | ends


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
