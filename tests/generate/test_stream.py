"""Streaming generation: chunk by chunk, in memory that does not grow."""

import dataclasses
import functools
import json
from pathlib import Path

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.chunk_times import chunk_of_frame, chunk_times
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.folder import GenerationJob
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.generate.stream import ClipStream, next_state, sample_chunk
from mobile_video_jax.generate.stream_folder import stream_folder
from mobile_video_jax.models.run import Run
from tests import tiny

MODEL = DitConfig(
    width=24,
    depth=2,
    heads=2,
    head_dim=12,
    ffn=32,
    time_features=16,
    layout=(("lcha", 1), ("ssa", 1)),
    causal=True,
    attention_window=1,
)
CONFIG = SampleConfig(2, guidance=2.0, shift=1.0, terminal=0.0, schedule="uniform")
TRAINED_CHUNKS = 1  # behind the first frame of the clips of tiny.CLIP
requests = [Request("a ring", 3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("stream")
    return tiny.dit_run(root / "dit", tiny.dit_config(root, model=MODEL))


@pytest.fixture(scope="module")
def stream(model) -> ClipStream:
    return ClipStream(Generator.load(model), CONFIG)


def test_state_and_arrays_are_as_large_after_16_times_the_training_length(stream):
    """The peak is that of the arrays that are alive while a chunk is held; programs are the same from chunk 2 on."""
    sizes = {length: stream.state_bytes(length * TRAINED_CHUNKS) for length in (1, 4, 16)}
    assert len(set(sizes.values())) == 1 and sizes[1] > 0

    def alive() -> int:
        return sum(x.nbytes for x in jax.live_arrays())

    chunks = [(alive(), latents)[0] for latents in stream.latents(requests, 16 * TRAINED_CHUNKS)]
    print(f"state: {sizes} bytes; alive: {chunks[2]} bytes at chunk 2, {max(chunks[2:])} at most")
    assert max(chunks[3:]) <= chunks[2]


def test_a_chunk_is_generated_behind_the_finished_ones_at_time_zero(stream):
    """The velocities that a chunk is sampled by are those of the whole clip whose earlier frames are clean."""
    generator, network = stream.generator, stream.generator.denoiser.network
    config = dataclasses.replace(CONFIG, guidance=1.0, steps=1)
    first, second = (x[:1] for x in ClipStream(generator, config).latents(requests, 1))
    text, mask, *_ = generator.conditions(requests, CONFIG)
    noise = list(_noise(stream))
    clip = jnp.concatenate([first, noise[1]], axis=1)
    times = jnp.array([[0.0, 1.0, 1.0]])
    velocity = jax.jit(network.apply)({"params": generator.params}, clip, times, text, mask)
    np.testing.assert_allclose(second, noise[1] - velocity[:, 1:], atol=1e-4)


def _noise(stream: ClipStream) -> list:
    source = stream._noise(requests)
    return [next(source), next(source)]


def test_guided_chunks_carry_a_state_for_both_passes(stream):
    generator = stream.generator
    text, mask, *_ = generator.conditions(requests, CONFIG)
    conditions = (text, mask, None)
    noise = _noise(stream)
    first = sample_chunk(generator.denoiser, CONFIG, generator.params, {}, noise[0], conditions)
    state = next_state(generator.denoiser, CONFIG, generator.params, {}, first, conditions)
    assert {len(x) for x in jax.tree.leaves(state) if x.ndim > 1} == {2}


def test_a_table_that_never_skips_streams_to_the_bit_and_one_that_skips_does_not(stream):
    generator, config = stream.generator, dataclasses.replace(CONFIG, guidance=1.0)
    params = generator.params
    text, mask, *_ = generator.conditions(requests, config)
    noise = _noise(stream)
    whole = functools.partial(sample_chunk, generator.denoiser, config, params)
    first = whole({}, noise[0], (text, mask, None))
    state = next_state(generator.denoiser, config, params, {}, first, (text, mask, None))
    chunk = whole(state, noise[1], (text, mask, None))

    def by_table(*table: str) -> jax.Array:
        settings = dataclasses.replace(config, reuse=table)
        return sample_chunk(generator.denoiser, settings, params, state, noise[1], (text, mask, None))

    np.testing.assert_array_equal(by_table("....", "...."), chunk)
    assert jnp.abs(by_table("....", "b..-") - chunk).max() > 1e-3


def test_each_half_of_a_guided_streams_steps_may_reuse(stream):
    settings = dataclasses.replace(CONFIG, reuse=("....", "cuuc"))
    chunks = [list(ClipStream(stream.generator, config).latents(requests, 1)) for config in (CONFIG, settings)]
    assert 1e-3 < jnp.abs(chunks[0][1] - chunks[1][1]).max() < jnp.inf


def test_clips_last_as_long_as_wanted_and_a_stopped_stream_resumes_behind_finished_ones(stream, tmp_path):
    both = [*requests, Request("a bar", 4)]
    job = GenerationJob(both, CONFIG, tmp_path)
    first, second = stream_folder(stream, job, seconds=2.5, batch_size=1)
    with av.open(str(tmp_path / first)) as file:
        frames = sum(1 for _ in file.decode(video=0))
    assert frames == 25  # 20 frames at 8 a second are the first frame and three chunks of 8
    assert json.loads((tmp_path / "samples.json").read_text())["seconds"] == 2.5

    (tmp_path / second).unlink()
    before = (tmp_path / first).stat().st_mtime_ns
    stream_folder(stream, job, seconds=2.5, batch_size=1)
    assert (tmp_path / first).stat().st_mtime_ns == before and (tmp_path / second).exists()


def test_models_that_see_whole_clips_and_settings_that_do_not_fit_are_refused(stream):
    run = stream.generator.run
    config = run.config | {"model": run.config["model"] | {"causal": False}}
    whole = dataclasses.replace(stream.generator, run=Run(run.path, dict(run.record) | {"config": config}))
    with pytest.raises(UserError, match="sees whole clips and cannot stream"):
        ClipStream(whole, CONFIG)
    with pytest.raises(UserError, match="guidance at all times"):
        ClipStream(stream.generator, dataclasses.replace(CONFIG, guidance_low=0.5))


def test_chunks_have_times_of_their_own_and_clean_ones_come_first():
    assert chunk_of_frame(5, 2) == [0, 1, 1, 2, 2]
    times = np.asarray(jax.jit(lambda rng: chunk_times(rng, 64, 5, 2, shift=1.0))(jax.random.key(0)))
    assert (times[:, 1] == times[:, 2]).all() and (times[:, 3] == times[:, 4]).all()
    assert (times[:, -1] > 0).all()  # every clip has a noisy chunk
    clean = times[:, [0, 1, 3]] == 0
    assert (np.diff(clean.astype(int), axis=1) <= 0).all() and 0 < clean[:, 1].mean() < 1
    assert ((times[:, 0] != times[:, 1]) | clean[:, 1]).all()
