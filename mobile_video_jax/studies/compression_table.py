"""Table of a study of VAEs: a row a cell, a group a compression and objective, and the best of them."""

from collections.abc import Sequence

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.world import ATTRIBUTES
from mobile_video_jax.metrics.accuracy import ACCURACIES, ALL
from mobile_video_jax.metrics.lpips import LPIPS
from mobile_video_jax.metrics.motion import BACK_AND_FORTH, MOTION_ENERGY
from mobile_video_jax.metrics.reconstruction import FLICKER, PSNR, SSIM
from mobile_video_jax.studies.pareto import front
from mobile_video_jax.studies.table import Column, Row, grouped

QUALITY = Column("psnr", PSNR.title, "{:.2f}")
FLOOR = Column("linear_psnr", "PSNR of a linear code (dB)", "{:.2f}")
GAIN = Column("last_quarter_gain", "PSNR gained in the last quarter (dB)", "{:.2f}")
BITS = Column("bits", "bits a pixel", "{:.3f}")
LOSS = Column("dit_eval_loss", "held-out velocity loss", "{:.4f}")
SAMPLES = Column("samples_right", "samples right in all")
KVD = Column("sample_kvd", "KVD of samples", "{:.4g}")
RECONSTRUCTIONS = (
    QUALITY,
    FLOOR,
    GAIN,
    Column("ssim", SSIM.title, "{:.3f}"),
    Column("lpips", LPIPS.title, "{:.3f}"),
    Column("flicker", FLICKER.title, "{:.2f}"),
    Column("kvd", "KVD", "{:.4g}"),
    Column("fvd", "FVD", "{:.4g}"),
    BITS,
    Column("high_frequency", "high frequency", "{:.3f}"),
    Column("lattice", "lattice (grey levels)", "{:.2f}"),
)
GENERATIONS = (
    LOSS,
    SAMPLES,
    KVD,
    Column("sample_fvd", "FVD of samples", "{:.4g}"),
    Column("sample_motion", "motion of samples over real", "{:.2f}"),
    Column("sample_flicker", "flicker of samples over real", "{:.2f}"),
    Column("sample_diversity", "diversity (grey levels)", "{:.1f}"),
)
COLUMNS = (*RECONSTRUCTIONS, *GENERATIONS)
PHONE = "phone_seconds"
PHONE_COSTS = ("phone_step_ms", "phone_decoder_ms", PHONE, "phone_decoder_mb")
COSTS = (
    "ratio",
    "tokens",
    "server_step_flops",
    "mobile_step_flops",
    "decoder_flops_per_frame",
    *PHONE_COSTS,
    "vae_flops",
    "dit_flops",
    "network",
)
# Figures of samples, by their keys in an evaluation; the second ones are told over those of real clips.
OF_SAMPLES = {
    **{ACCURACIES[ALL].key: SAMPLES.key, "kvd": KVD.key, "fvd": "sample_fvd", "diversity": "sample_diversity"},
    **{ACCURACIES[name].key: f"{SAMPLES.key}_{name}" for name in ATTRIBUTES},
}
OVER_REAL = {"sample_motion": MOTION_ENERGY.key, "sample_flicker": BACK_AND_FORTH.key}


def table_rows(results: Sequence[Row]) -> list[Row]:
    """A row for each cell. Raises UserError for cells that an older version evaluated."""
    if older := [result["name"] for result in results if "bits" not in result]:
        raise UserError(f"an older version evaluated cell {older[0]}: remove its result.json to evaluate it again")
    rows = [_row(result) for result in results]
    if len({len(result["spectrum"]["latents"]) for result in results}) > 1:  # shares of tiles of other sizes
        rows = [row | {"high_frequency": None} for row in rows]
    return rows


def _row(result: Row) -> Row:
    """One cell's figures, flat. A key with _low or _high behind it is an end of its 95 % interval over clips."""
    samples, real = (result["diffusability"][key] for key in ("samples", "real"))
    scores = result["metrics"] | {name: samples[key] for key, name in OF_SAMPLES.items() if key in samples}
    return {
        **{key: result[key] for key in ("name", "compression", "objective", "seed", *COSTS, "bits")},
        **{key: score["value"] for key, score in scores.items()},
        **{f"{key}_{end}": score[end] for key, score in scores.items() for end in ("low", "high")},
        **{name: _ratio(samples, real, key) for name, key in OVER_REAL.items()},
        "high_frequency": result["high_frequency"].get("latents"),
        "lattice": result["lattice"]["amplitude"],
        "linear_psnr": result["learning"]["floor_psnr"],
        "linear_ssim": result["linear"].get("ssim", {}).get("value"),
        "last_quarter_gain": result["learning"]["psnr"]["all"] - result["learning"]["psnr"]["three_quarters"],
        **{f"psnr_at_{point}": value for point, value in result["learning"]["psnr"].items()},
        "untrained": result["learning"]["untrained"],
        "dit_eval_loss": result["diffusability"]["eval_loss"],
        "seconds": result["seconds"]["all"],
    }


def _ratio(samples: Row, real: Row, key: str) -> float | None:
    return samples[key]["value"] / real[key]["value"] if key in samples and real[key]["value"] else None


def summary(rows: Sequence[Row]) -> list[Row]:
    """Mean and standard deviation over the seeds of each compression and objective; of one seed, the interval.

    `front` names the qualities in which no trained group is both better and as fast on the phone.
    """
    groups = [
        {key: members[0][key] for key in ("compression", "objective", *COSTS)}
        | {"seeds": len(members), "untrained": next((row["untrained"] for row in members if row["untrained"]), "")}
        | {column.key: column.spread(members) for column in COLUMNS}
        for members in grouped(rows, lambda row: (row["compression"], row["objective"]))
    ]
    for column in filter(None, (QUALITY, judge(groups))):
        for group in on_front(groups, column):
            group.setdefault("front", []).append(column.heading)
    return groups


def read_back(groups: Sequence[Row]) -> bool:
    """True where the detector read samples back, which it does of synthetic clips alone."""
    return _is_known(groups, SAMPLES)


def judge(groups: Sequence[Row]) -> Column | None:
    """The quality of samples that tells compressions apart: shares read back, else KVD; None where neither is known."""
    return next((column for column in (SAMPLES, KVD) if _is_known(groups, column)), None)


def merit(group: Row, column: Column) -> float:
    """A group's mean in a column of qualities, more being better."""
    mean: float = group[column.key]["mean"]
    return -mean if column is KVD else mean


def on_front(groups: Sequence[Row], column: Column) -> list[Row]:
    """The trained groups that no other beats in this quality without taking longer on the phone, the fastest first."""
    known = [group for group in groups if not group["untrained"] and group[column.key]["mean"] is not None]
    chosen = front([(group[PHONE], merit(group, column)) for group in known])
    return [known[i] for i in chosen]


def best_group(groups: Sequence[Row]) -> str | None:
    """The trained group whose samples are best by `judge`, None where there is none.

    Where no quality of samples is known, the group of lowest held-out loss, if all have one compression: latents of
    other strides and channels are easier or harder to predict, so that their losses are on other scales.
    """
    groups, column = [group for group in groups if not group["untrained"]], judge(groups)
    if column:
        known = [group for group in groups if group[column.key]["mean"] is not None]
        best = max(known, key=lambda group: merit(group, column), default=None)
    else:
        same = len({group["compression"] for group in groups}) == 1
        best = min(groups, key=lambda group: group[LOSS.key]["mean"]) if same else None
    return f"{best['compression']}-{best['objective']}" if best else None


def _is_known(groups: Sequence[Row], column: Column) -> bool:
    return any(group[column.key]["mean"] is not None for group in groups)
