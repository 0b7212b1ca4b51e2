"""Settings of a denoiser, part of every config that trains one."""

import dataclasses
from typing import Literal, TypeVar

from mobile_video_jax.core.clip import Compression
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.ranges import Decay, Share, Shift, Size
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.network_config import NetworkConfig, as_transformer

T = TypeVar("T", bound="DenoiserConfig")
ScheduleName = Literal["uniform", "linear_quadratic", "thousandth"]  # keys of diffusion.timesteps.SCHEDULES
SolverName = Literal["euler", "heun", "dpmpp_2m", "renoise", "unipc"]  # keys of diffusion.samplers.SOLVERS


@dataclasses.dataclass(frozen=True)
class DenoiserConfig(Config):
    """A denoiser's clips, captions and times, and its network."""

    clip: str = "17x64x64"  # frames x height x width in pixels, of samples and of a batch's tokens
    compression: str = "t4_s8_c16"  # strides in time and space and channels of the VAE of the latents
    text_encoder: str = "minilm"  # encoder of the captions' states: minilm, or the name that encoded data give
    text_width: Size = 384  # channels of a caption's states
    text_tokens: Size = 16  # longest caption in tokens; shorter ones are padded
    image_probability: Share = 0.0  # share of training clips whose first latent frame is a condition (image to video)
    time_shift: Shift = 1.0  # moves training times towards noise where above 1
    shift_follows_tokens: bool = False  # the shift follows from a clip's tokens, in place of time_shift
    time_terminal: Decay = 0.0  # time at which a sampler's last step starts; 0: where the grid says
    time_schedule: ScheduleName = "uniform"  # a sampler's times before the shift: equally far apart, or slow at first
    model: NetworkConfig = dataclasses.field(default_factory=DitConfig)  # the network's sizes

    @property
    def transformer(self) -> DitConfig:
        """`model`, for what can be done with a transformer alone. Raises UserError for another network."""
        return as_transformer(self.model)

    def at_rate(self: T, frames_a_second: float) -> T:
        """The config for clips of that rate, which the positions of networks that know seconds follow; 0: not known."""
        if not frames_a_second:
            return self
        seconds = Compression.parse(self.compression).time / frames_a_second
        return dataclasses.replace(self, model=self.model.with_latent_seconds(seconds))
