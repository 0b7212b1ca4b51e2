"""What a search asks of a network: its space, its costs, and weights that all layouts share."""

from pathlib import Path
from typing import Any, Protocol

from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Latents, Rng
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.network_config import NetworkConfig
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.costs import Costs, CostTable
from mobile_video_jax.search.random_layouts import Sampler
from mobile_video_jax.search.space import Layout, Space
from mobile_video_jax.search.steps import Steps

Params = Any


class NetworkSearch(Protocol):
    """One kind of network whose layout can be searched.

    Shared parameters are {"rest", "variants"}: those of every layout, and those of each choice at each position.
    """

    @property
    def denoiser(self) -> Denoiser:
        """The trained denoiser, for clips of the shape that is searched for."""

    @property
    def trainable(self) -> frozenset[str]:
        """The shared parameters that steps train."""

    def space(self, config: SearchConfig) -> Space:
        """The layouts. Raises UserError for a network that has a layout already, and kinds that do not fit it."""

    def trained(self, space: Space) -> Layout:
        """The layout of the network as it was trained."""

    def costs(self, layout: Layout) -> Costs:
        """The costs of a whole network of this layout: milliseconds by the phone's fitted roofline (cost/phone)."""

    def table(self, space: Space) -> CostTable:
        """The costs of one call for one clip of the denoiser's shape, by parts."""

    @property
    def digest(self) -> str:
        """A digest of what the table depends on."""

    def shared(self, config: SearchConfig, sampler: Sampler, steps: Steps, params: Params, out: Path) -> Params:
        """Shared parameters for a run's `params`, learned or read from `out`, where they are saved."""

    def numbers(self, layout: Layout, params: Params) -> Int[Array, "l"]:
        """The layout as the shared network takes it."""

    def velocity(self, params: Params, layout: Int[Array, "l"], *inputs: Any) -> Latents:
        """The velocity of a layout with the shared parameters; `inputs` are those of the network."""

    def model(self, layout: Layout) -> NetworkConfig:
        """The config of the network of a layout."""

    def params(self, layout: Layout, params: Params, rng: Rng) -> Params:
        """The parameters of that network, from the shared ones."""

    def values(self, layout: Layout) -> dict[str, Any]:
        """The keys of a config's `model` that make it."""

    def block_map(self, layout: Layout) -> list[int] | None:
        """The blocks of the trained network that its own learn from; None where there are no such."""
