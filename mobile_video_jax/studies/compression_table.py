"""Table of a study of VAEs: a row a cell, a group a compression and objective, and the best of them."""

from collections.abc import Sequence

from mobile_video_jax.metrics.reconstruction import FLICKER, PSNR, SSIM
from mobile_video_jax.studies.table import Column, Row, grouped

QUALITY = Column("psnr", PSNR.title, "{:.2f}")
FLOOR = Column("linear_psnr", "PSNR of a linear code (dB)", "{:.2f}")
GAIN = Column("last_quarter_gain", "PSNR gained in the last quarter (dB)", "{:.2f}")
LOSS = Column("dit_eval_loss", "held-out velocity loss", "{:.4f}")
SAMPLES = Column("samples_right", "samples right in all")
COLUMNS = (
    QUALITY,
    FLOOR,
    GAIN,
    Column("ssim", SSIM.title, "{:.3f}"),
    Column("flicker", FLICKER.title, "{:.2f}"),
    Column("high_frequency", "high frequency", "{:.3f}"),
    Column("lattice", "lattice (grey levels)", "{:.2f}"),
    LOSS,
    SAMPLES,
)
COSTS = (
    "ratio",
    "tokens",
    "server_step_flops",
    "mobile_step_flops",
    "decoder_flops_per_frame",
    "vae_flops",
    "dit_flops",
    "network",
)


def table_rows(results: Sequence[Row]) -> list[Row]:
    """A row for each cell."""
    rows = [_row(result) for result in results]
    if len({len(result["spectrum"]["latents"]) for result in results}) > 1:  # shares of tiles of other sizes
        rows = [row | {"high_frequency": None} for row in rows]
    return rows


def _row(result: Row) -> Row:
    """One cell's figures, flat."""
    diffusability = result["diffusability"]
    accuracy = diffusability.get("accuracy", {})
    return {
        **{key: result[key] for key in ("name", "compression", "objective", "seed", *COSTS)},
        **{key: score["value"] for key, score in result["metrics"].items()},
        "high_frequency": result["high_frequency"].get("latents"),
        "lattice": result["lattice"]["amplitude"],
        "linear_psnr": result["learning"]["floor_psnr"],
        "linear_ssim": result["linear"].get("ssim", {}).get("value"),
        "last_quarter_gain": result["learning"]["psnr"]["all"] - result["learning"]["psnr"]["three_quarters"],
        **{f"psnr_at_{point}": value for point, value in result["learning"]["psnr"].items()},
        "untrained": result["learning"]["untrained"],
        "dit_eval_loss": diffusability["eval_loss"],
        **{f"samples_right_{name}": score["value"] for name, score in accuracy.items() if name != "all"},
        "samples_right": accuracy.get("all", {}).get("value"),
        "seconds": result["seconds"]["all"],
    }


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and standard deviation over the seeds of each compression and objective."""
    return [
        {key: members[0][key] for key in ("compression", "objective", *COSTS)}
        | {"seeds": len(members), "untrained": next((row["untrained"] for row in members if row["untrained"]), "")}
        | {column.key: column.spread(members) for column in COLUMNS}
        for members in grouped(rows, lambda row: (row["compression"], row["objective"]))
    ]


def read_back(groups: Sequence[Row]) -> bool:
    """True where the detector read samples back, which it does of synthetic clips alone."""
    return any(group[SAMPLES.key]["mean"] is not None for group in groups)


def best_group(groups: Sequence[Row]) -> str | None:
    """The trained group whose samples are right most often, None where there is none.

    Where none were read back, the group of lowest held-out loss, if all have one compression: latents of other strides
    and channels are easier or harder to predict, so that their losses are on other scales, and None is best.
    """
    groups = [group for group in groups if not group["untrained"]]
    if read_back(groups):
        known = [group for group in groups if group[SAMPLES.key]["mean"] is not None]
        best = max(known, key=lambda group: group[SAMPLES.key]["mean"])
    elif len({group["compression"] for group in groups}) == 1:
        best = min(groups, key=lambda group: group[LOSS.key]["mean"])
    else:
        return None
    return f"{best['compression']}-{best['objective']}"
