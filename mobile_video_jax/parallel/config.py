"""Settings of a device mesh and of rematerialisation."""

import dataclasses
import math
from typing import Annotated, Literal

from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Range, Size

Axis = Annotated[int, Range(1, 1 << 20, also=-1)]
Remat = Literal["none", "dots", "full"]  # kept for the backward pass: all, matrix products, a block's input alone


@dataclasses.dataclass(frozen=True)
class MeshConfig(Config):
    """Devices along each mesh axis; one of data, fsdp and tensor may be -1: all remaining devices."""

    data: Axis = -1  # devices that share the batch, each with all weights
    fsdp: Axis = 1  # devices that share the batch and the weights
    tensor: Axis = 1  # devices that share each layer's heads and channels, or a VAE's pixel rows
    sequence: Size = 1  # devices that share the tokens of a clip; the axis is in a mesh only where above 1

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """Sizes of data, fsdp and tensor, with -1 resolved. Raises UserError unless the axes multiply to `devices`."""
        sizes = [self.data, self.fsdp, self.tensor]
        if sizes.count(-1) > 1:
            raise UserError(f"mesh {(*sizes, self.sequence)}: only one of the first three may be -1")
        rest = self.sequence * math.prod(size for size in sizes if size != -1)
        if devices % rest or (-1 not in sizes and rest != devices):
            raise UserError(
                f"mesh data={self.data} fsdp={self.fsdp} tensor={self.tensor} sequence={self.sequence} does not divide "
                f"{devices} device(s): set one axis to -1 or make the product {devices}"
            )
        data, fsdp, tensor = (devices // rest if size == -1 else size for size in sizes)
        return data, fsdp, tensor
