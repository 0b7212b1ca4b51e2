"""The packages of a run's denoiser, by the class of its network's config."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from export.app.parts import dit_parts, unet_parts
from export.app.settings import Settings
from export.part import Part
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.unet.config import UnetConfig


@dataclasses.dataclass(frozen=True)
class Exporter:
    """One kind of network.

    `parts` are its packages; `tiles(settings, config, tokens)` are the tiles of each FFN for clips of so many tokens.
    """

    parts: Callable[[Generator, Settings, Path], Iterator[Part]]
    tiles: Callable[[Settings, Any, int], tuple[int, ...]]


def _no_tiles(settings: Settings, config: UnetConfig, tokens: int) -> tuple[int, ...]:
    if settings.tiles or settings.cut_inputs or settings.form != "phone":
        raise UserError("--tiles, --cut_inputs and --form are for a transformer: leave them out for a U-Net")
    return ()


EXPORTERS: dict[type, Exporter] = {
    DitConfig: Exporter(dit_parts, Settings.tiles_of),
    UnetConfig: Exporter(unet_parts, _no_tiles),
}
