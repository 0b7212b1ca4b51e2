"""Streaming generation: chunk by chunk, in memory that does not grow."""

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.diffusion.chunk_times import chunk_of_frame, chunk_times
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.replaced import Key, velocity_with
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.folder import GenerationJob
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request
from mobile_video_jax.generate.stream import START, ClipStream, State, next_state, sample_chunk, state_after
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
    first, _ = sample_chunk(generator.denoiser, CONFIG, generator.params, START, noise[0], conditions)
    state = next_state(generator.denoiser, CONFIG, generator.params, START, first, conditions)
    assert {len(x) for x in jax.tree.leaves(state) if x.ndim > 1} == {2}


def test_a_table_that_never_skips_streams_to_the_bit_and_one_that_skips_does_not(stream):
    generator, config = stream.generator, dataclasses.replace(CONFIG, guidance=1.0)
    params = generator.params
    text, mask, *_ = generator.conditions(requests, config)
    noise = _noise(stream)
    whole = functools.partial(sample_chunk, generator.denoiser, config, params)
    first, _ = whole(START, noise[0], (text, mask, None))
    state = State(next_state(generator.denoiser, config, params, START, first, (text, mask, None)), {})
    chunk, _ = whole(state, noise[1], (text, mask, None))

    def by_table(*table: str) -> jax.Array:
        settings = dataclasses.replace(config, reuse=table)
        return sample_chunk(generator.denoiser, settings, params, state, noise[1], (text, mask, None))[0]

    np.testing.assert_array_equal(by_table("....", "...."), chunk)
    assert jnp.abs(by_table("....", "b..-") - chunk).max() > 1e-3


def test_each_half_of_a_guided_streams_steps_may_reuse(stream):
    settings = dataclasses.replace(CONFIG, reuse=("....", "cuuc"))
    chunks = [list(ClipStream(stream.generator, config).latents(requests, 1)) for config in (CONFIG, settings)]
    assert 1e-3 < jnp.abs(chunks[0][1] - chunks[1][1]).max() < jnp.inf


TABLE = ("p.p.", ".pb.")  # across chunks three outputs, and one within a chunk
REUSED = ({(0, "self_attention"), (1, "self_attention")}, {(0, "ffn")})  # of the chunk before at each step


def test_every_second_chunk_has_outputs_of_the_same_step_of_the_chunk_before(stream):
    generator, config = stream.generator, dataclasses.replace(CONFIG, guidance=1.0, reuse=TABLE)
    text, mask = map(jnp.asarray, generator.conditions(requests, config)[:2])
    noise = [*itertools.islice(stream._noise(requests), 4)]
    chunks = list(ClipStream(generator, config).latents(requests, 3))
    state = START

    def drawn(x: jax.Array, before: list[dict[Key, jax.Array]] | None) -> tuple[jax.Array, list[dict[Key, jax.Array]]]:
        """The chunk of two Euler steps behind `state`, and all its outputs, of which the last may be its first's."""
        outputs: list[dict[Key, jax.Array]] = []
        for i, t in enumerate((1.0, 0.5)):
            own: dict[Key, jax.Array] = {}

            def replace(module, i=i, own=own):
                y = module.compute(module.z)
                if before is not None and module.key in REUSED[i]:
                    y = before[i][module.key]
                if i == 1 and module.key == (1, "self_attention"):
                    y = outputs[0][module.key]
                own[module.key] = y
                return y

            inputs = (x, jnp.full(1, t), text, mask)
            x -= 0.5 * velocity_with(
                generator.denoiser.network, generator.params, replace, *inputs, stream=state.network
            )
            outputs.append(own)
        return x, outputs

    before = None
    for i, chunk in enumerate(chunks):
        expected, outputs = drawn(noise[i], before)
        np.testing.assert_allclose(chunk, expected, atol=1e-4)
        before = outputs if i == 1 else None  # the third chunk behind the first frame computes again
        state = State(next_state(generator.denoiser, config, generator.params, state, chunk, (text, mask, None)), {})
    within = dataclasses.replace(config, reuse=("....", "..b."))
    plain = list(ClipStream(generator, within).latents(requests, 2))
    np.testing.assert_allclose(chunks[1], plain[1], atol=1e-5)
    assert jnp.abs(chunks[2] - plain[2]).max() > 1e-3


def test_guided_chunks_reuse_across_chunks_and_the_state_says_what_is_carried(stream):
    config = dataclasses.replace(CONFIG, reuse=TABLE)
    plain, by_table = (list(ClipStream(stream.generator, c).latents(requests, 2)) for c in (CONFIG, config))
    assert 1e-3 < jnp.abs(by_table[2] - plain[2]).max() < jnp.inf
    sizes = [ClipStream(stream.generator, config).state_bytes(chunks) for chunks in (0, 1, 2, 3)]
    outputs = 3 * 2 * 2 * 16 * 24 * 4  # letters, halves, frames, tokens of a frame, width, bytes
    assert [size - stream.state_bytes(2) for size in sizes[1:]] == [outputs, 0, outputs]


def test_what_chunks_reuse_is_not_computed(stream):
    denoiser, params = stream.generator.denoiser, stream.generator.params
    config = dataclasses.replace(CONFIG, guidance=1.0, reuse=("pp..",) * 2)
    latents, *_, text, mask = denoiser.zero_inputs()
    noise, conditions = latents[:, : stream.chunk_frames], (text, mask, None)
    counts = [
        count_flops(functools.partial(sample_chunk, denoiser, config), params, state, noise, conditions)
        for state in (state_after(denoiser, config, params, chunks) for chunks in (2, 1))
    ]
    parts = [
        {
            part: sum(n for path, n in count.items() if part in path)
            for part in ("block_0/ffn", "block_1/ffn", "block_0/self", "block_1/self")
        }
        for count in counts
    ]
    assert all(parts[0].values()) and [bool(n) for n in parts[1].values()] == [False, True, False, True]


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
    with pytest.raises(UserError, match="path_drop is for whole clips"):
        ClipStream(stream.generator, dataclasses.replace(CONFIG, path_drop=True))


def test_chunks_have_times_of_their_own_and_clean_ones_come_first():
    assert chunk_of_frame(5, 2) == [0, 1, 1, 2, 2]
    times = np.asarray(jax.jit(lambda rng: chunk_times(rng, 64, 5, 2, shift=1.0))(jax.random.key(0)))
    assert (times[:, 1] == times[:, 2]).all() and (times[:, 3] == times[:, 4]).all()
    assert (times[:, -1] > 0).all()  # every clip has a noisy chunk
    clean = times[:, [0, 1, 3]] == 0
    assert (np.diff(clean.astype(int), axis=1) <= 0).all() and 0 < clean[:, 1].mean() < 1
    assert ((times[:, 0] != times[:, 1]) | clean[:, 1]).all()
