"""LTX-Video from a first frame: what diffusers' two pipelines of image to video sample from the posterior's mean."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from mobile_video_jax.diffusion.samplers import fresh_noise
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.interop.import_weights import import_weights, open_diffusers
from tests.interop.pipeline import SCHEDULER, make_pipeline

CLIP, RATE, PROMPT, NEGATIVE = "17x64x96", 12.5, "a red ball moving", "ball"
# The folder's class, the class that samples from an image, and the scheduler.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "0.9": ("LTXPipeline", "LTXImageToVideoPipeline", SCHEDULER),
    "0.9.5": ("LTXConditionPipeline", "LTXConditionPipeline", {"shift": 1.0}),
}
# diffusers copies a torch tensor in numpy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_from_an_image_equals_the_pipeline(tmp_path, monkeypatch, kind):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    posterior = "diffusers.models.autoencoders.vae.DiagonalGaussianDistribution.sample"
    monkeypatch.setattr(posterior, lambda self, generator=None: self.mode())
    saved, sampled, scheduler = KINDS[kind]
    theirs = getattr(diffusers, sampled)(**make_pipeline(tmp_path / "ltx", saved, scheduler).components)
    import_weights(open_diffusers(tmp_path / "ltx"), tmp_path / "run", clip=CLIP, frame_rate=RATE, scan=False)
    image: Path = tmp_path / "first.png"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(image)
    generator = Generator.load(tmp_path / "run", text_encoder=f"ltx:{tmp_path / 'ltx'}")
    config = generator.sample_config(steps=4, guidance=3.0, negative_prompt=NEGATIVE)
    generator.check([Request(PROMPT, 0, image)], config)
    _, *inputs = generator.inputs([Request(PROMPT, 0, image)], config)
    noise = torch.randn((1, 6, 3, 2, 3), generator=torch.Generator().manual_seed(7))
    latents = generator._compiled(config, generator.params, noise.permute(0, 2, 3, 4, 1).numpy(), *inputs)
    if kind == "0.9.5":
        assert config.image_noise == 0.15
        _draw_as_here(monkeypatch, jnp.asarray(noise.permute(0, 2, 3, 4, 1).numpy()), generator.time_grid(config))
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        image=PIL.Image.open(image),
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        height=64,
        width=96,
        num_frames=17,
        frame_rate=RATE,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).frames
    # One class returns tokens, the other a grid.
    expected = expected.reshape(1, 3, 2, 3, 6) if expected.ndim == 3 else expected.permute(0, 2, 3, 4, 1)
    expected = expected.numpy()
    # Their first frame keeps the noise of the last step.
    assert np.linalg.norm((latents - expected)[:, 1:]) <= 1e-3 * np.linalg.norm(expected[:, 1:])
    assert np.array_equal(latents[:, :1], inputs[-1][0])


def _draw_as_here(monkeypatch: Any, noise: Any, times: Any) -> None:
    """Lets the pipeline draw the noise of the given frame, after its first draw, as diffusion/conditioning.py does."""
    torch, draws = pytest.importorskip("torch"), iter(times)

    def drawn(shape: tuple[int, ...], **_: Any) -> Any:
        if len(shape) == 5:
            return torch.tensor(np.array(noise)).permute(0, 4, 1, 2, 3).clone()
        bits = jax.lax.bitcast_convert_type(next(draws), jnp.uint32)
        return torch.tensor(np.array(fresh_noise(noise, bits))).reshape(shape)

    monkeypatch.setattr("diffusers.pipelines.ltx.pipeline_ltx_condition.randn_tensor", drawn)
