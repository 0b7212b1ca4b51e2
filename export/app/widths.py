"""Several widths of an elastic run in one package: what each is exported from, and the tiles and chunks of all."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import torch

from export.app.settings import Settings
from export.phone.staircase import SizesByWidth, matrix_sizes
from export.pytorch import dit as torch_dit
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.elastic import own_params
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.width import elastic_stage, networks_of_widths


@dataclasses.dataclass(frozen=True)
class WidthFamily:
    """The networks of a package's widths, the narrowest first; the sizes of the matrices, which all are cut by."""

    configs: tuple[DitConfig, ...]
    matrices: dict[str, SizesByWidth]
    widest: torch_dit.Dit  # without numbers

    def tiles(self, widest: Sequence[int], config: DitConfig) -> tuple[int, ...]:
        """The tiles of a width's FFNs, as large as the widest network's."""
        blocks = zip(widest, config.block_shapes, self.configs[-1].block_shapes, strict=True)
        return tuple(max(count * own.ffn // whole.ffn, 1) for count, own, whole in blocks)


def check_widths(run: Run, settings: Settings) -> None:
    """Raises UserError for widths that do not fit the run, the other settings or the memory."""
    widths = settings.widths
    if not widths:
        if settings.max_memory:
            raise UserError("--max_memory is for a package of --widths: leave it out, or see --chunk_megabytes")
        return
    if len(settings.clips) > 1 or settings.stream or settings.form != "phone":
        raise UserError(
            "--widths are functions for one clip in the phone's form: leave out --stream, --form, more --clip"
        )
    if list(widths) != sorted(set(widths)):
        raise UserError("--widths: name each width once, the narrowest first")
    stage = elastic_stage(run, widths)
    bytes_of = [2 * count_parameters(own_params(stage.networks[width].parameter_shapes)) for width in widths]
    bytes_of[-1] = 2 * count_parameters(stage.networks[widths[-1]].parameter_shapes)
    limit = 1e6 * settings.max_memory
    if limit and sum(bytes_of) > limit:
        raise UserError(
            f"widths {', '.join(f'{width:g}' for width in widths)} take {sum(bytes_of) / 1e6:.1f} MB in fp16, above "
            f"--max_memory={settings.max_memory:g}: name fewer or narrower widths, or raise it"
        )


def whole_tiles(tiles: Sequence[int], widths: Sequence[float], *, chosen: bool) -> tuple[int, ...]:
    """Tiles of the widest network that leave each width a whole number of them.

    Those that nobody chose are raised to the next such number. Raises UserError for others.
    """
    if not widths:
        return tuple(tiles)
    shares = [Fraction(width / widths[-1]).limit_denominator(1000) for width in widths]
    least = math.lcm(*(share.denominator for share in shares))
    if chosen and any(count > 1 and count % least for count in tiles):
        raise UserError(f"--tiles: use 1 or multiples of {least}, of which each width has a whole number")
    return tuple(count if count == 1 or count % least == 0 else least * -(-count // least) for count in tiles)


def width_generators(generator: Generator, widths: Sequence[float]) -> tuple[list[Generator], WidthFamily]:
    """A generator for each width, and what their packages have in common."""
    runs = networks_of_widths(generator.run, widths, generator.mesh)
    generators = [dataclasses.replace(generator, run=run, params=params) for run, params in runs]
    configs = tuple(each.denoiser.config.transformer for each in generators)
    shape, text = generator.denoiser.latent_shape_of(generator.clip), generator.denoiser.config.text_width
    with torch.device("meta"):
        mirrors = [torch_dit.Dit(config, shape, text) for config in configs]
    return generators, WidthFamily(configs, matrix_sizes(mirrors), mirrors[-1])
