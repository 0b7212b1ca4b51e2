"""Times and solvers give the trajectories of diffusers' schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from mobile_video_jax.diffusion.samplers import SOLVERS, sample
from mobile_video_jax.diffusion.timesteps import time_grid, token_shift
from tests.diffusion.toy import clips, exact_velocity

# diffusers' multistep scheduler hands tensors to np.array.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VELOCITY = exact_velocity(0.5, 0.3)
STEPS = 10
# LTX-Video's scheduler (scripts/convert_ltx_to_diffusers.py), without its stretch to a terminal time.
LTX = {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024, "max_image_seq_len": 4096}
TOKENS = 2000


def ours(solver: str, grid: jax.Array) -> np.ndarray:
    """All points of the trajectory: without jit a scan is a loop, and the velocity sees its values."""
    points = []

    def velocity(x, t):
        points.append(x)
        return VELOCITY(x, t)

    with jax.disable_jit():
        last = SOLVERS[solver](velocity, clips(0), grid)
    return np.stack([*points, last])


def theirs(scheduler) -> np.ndarray:
    points = [torch.tensor(np.asarray(clips(0)))]
    scheduler.set_begin_index(0)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        velocity = VELOCITY(points[-1], sigma.expand(len(points[-1])))
        points.append(scheduler.step(velocity, t, points[-1]).prev_sample)
    return torch.stack(points).numpy()


def static_shift() -> tuple[FlowMatchEulerDiscreteScheduler, float]:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / STEPS, STEPS))
    return scheduler, 3.0


def dynamic_shift() -> tuple[FlowMatchEulerDiscreteScheduler, float]:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="exponential", **LTX)
    mu = np.interp(TOKENS, [1024, 4096], [0.95, 2.05])
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / STEPS, STEPS), mu=mu)
    return scheduler, token_shift(TOKENS)


@pytest.mark.parametrize("peer", [static_shift, dynamic_shift])
def test_euler_follows_the_flow_matching_scheduler(peer):
    scheduler, shift = peer()
    grid = time_grid(STEPS, shift=shift)
    np.testing.assert_allclose(grid, scheduler.sigmas, atol=1e-5)
    expected = theirs(scheduler)
    np.testing.assert_allclose(ours("euler", grid), expected, atol=1e-5)
    np.testing.assert_allclose(sample(VELOCITY, clips(0), steps=STEPS, shift=shift), expected[-1], atol=1e-5)


def multistep(steps: int) -> DPMSolverMultistepScheduler:
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", solver_order=2, flow_shift=3.0
    )
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("steps", [1, 2, 3, STEPS, 20])
def test_dpmpp_2m_follows_the_multistep_scheduler(steps):
    scheduler, grid = multistep(steps), time_grid(steps, shift=3.0)
    scheduler.sigmas = torch.tensor(np.asarray(grid))
    expected = theirs(scheduler)
    np.testing.assert_allclose(ours("dpmpp_2m", grid), expected, atol=1e-4)
    samples = sample(VELOCITY, clips(0), steps=steps, shift=3.0, solver="dpmpp_2m")
    np.testing.assert_allclose(samples, expected[-1], atol=1e-4)


def test_dpmpp_2m_follows_a_grid_that_starts_below_pure_noise():
    scheduler = multistep(STEPS)
    assert scheduler.sigmas[0] < 1
    np.testing.assert_allclose(ours("dpmpp_2m", jnp.array(scheduler.sigmas.numpy())), theirs(scheduler), atol=1e-4)
