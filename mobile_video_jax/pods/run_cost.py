"""Hours, chip-hours and money of a whole run, from the estimated seconds of its step."""

from collections.abc import Mapping
from typing import Any

# The longest estimate: nothing has been timed on a TPU, and what does not overlap costs more.
PLAN_WITH = "serial"


def run_cost(report: Mapping[str, Any], steps: int, price: float | None) -> dict[str, Any]:
    """The cost of so many steps by each of a report's estimates (pods.compile.step_report).

    `price` is in dollars for an hour of one chip; without it `dollars` is None. Compiling, evaluation, checkpoints
    and restarts are not in it.
    """
    estimates = {}
    for name in ("overlapped", "step", PLAN_WITH):
        hours = steps * report["roofline"][f"{name}_seconds"] / 3600
        chip_hours = hours * report["devices"]
        dollars = None if price is None else chip_hours * price
        estimates[name] = {"hours": hours, "chip_hours": chip_hours, "dollars": dollars}
    return {"steps": steps, "price": price, "plan_with": PLAN_WITH, "estimates": estimates}
