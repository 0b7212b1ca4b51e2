"""A teacher's outputs beside the latents that they are of, so that a student learns without the teacher in memory.

A taught data set is an encoded one whose training records also hold `draws` noisy versions of the clip, each as a seed,
a time and whether its caption was dropped, and the velocity that the teacher predicted of it.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, UInt32

from mobile_video_jax.core.arrays import Latents, TextMask, TextStates
from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.core.ranges import Seed, Share, Size
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.diffusion.guidance import EmptyCaption, null_text
from mobile_video_jax.diffusion.path import interpolate
from mobile_video_jax.diffusion.timesteps import sample_times
from mobile_video_jax.latents.store import (
    TAUGHT,
    Record,
    has_split,
    open_shards,
    parse,
    read_empty_caption,
    read_manifest,
    read_summary,
    shard_path,
    shards,
    write_empty_caption,
    write_manifest,
    write_shard,
)
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import check_batch, make_mesh, put_batch
from mobile_video_jax.text.encoder import pad
from mobile_video_jax.train.checkpoint import checkpoint_path
from mobile_video_jax.vae.latent_stats import LatentStats

CLAIM = "inputs.json"
FACTS = {"files": "bytes", "sha256": "sha256"}  # keys of a manifest by those of a shard's summary
Seeds = UInt32[Array, "b"]


@dataclasses.dataclass(frozen=True)
class TeachOptions(Config):
    """Options of teaching a data set."""

    draws: Size = 4  # noisy versions of each clip
    caption_dropout: Share = 0.1  # probability that a version's caption is dropped
    batch_size: Size = 32  # clips of one pass of the teacher
    seed: Seed = 0  # of times, noise and dropped captions


def noise_of(seeds: Seeds, shape: tuple[int, ...]) -> Latents:
    """The noise of each seed, of the shape of one clip's latents."""
    return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), shape))(seeds)


def without_captions(
    dropped: Bool[Array, "b"], text: TextStates, mask: TextMask, empty: EmptyCaption | None
) -> tuple[TextStates, TextMask]:
    """The captions, and "no caption" where they are dropped."""
    null_states, null_mask = null_text(text, mask, empty)
    return jnp.where(dropped[:, None, None], null_states, text), jnp.where(dropped[:, None], null_mask, mask)


def teach(teacher: Run, data: Path, out: Path, options: TeachOptions) -> dict[str, Any]:
    """Writes the taught data set of an encoded one, shard by shard; returns its manifest.

    Called again, it keeps the shards that are finished. Raises UserError for latents of another VAE than the teacher's,
    captions of another text encoder, a teacher without weights, and a folder that was taught otherwise.
    """
    manifest = read_manifest(data)
    _check_same_inputs(teacher, data, manifest)
    checkpoint_path(teacher.path, teacher.step)
    mesh = make_mesh(MeshConfig(data=-1), jax.local_devices())
    check_batch(options.batch_size, mesh)
    inputs = {"teacher": teacher.name, "step": teacher.step, "data": manifest, "options": dataclasses.asdict(options)}
    claim(out, CLAIM, inputs, "taught data set")
    Run.open(data / VAE, VAE).copy(out / VAE)
    if (empty := read_empty_caption(data)) is not None:
        write_empty_caption(out, empty[None])
    lesson, written = _Lesson(teacher, options, empty, mesh), dict[str, Any]()
    jobs = list(_jobs(data, out, manifest))
    progress = Progress("teach: shard", len(jobs))
    for split, path, target in jobs:
        if read_summary(target) is None:
            source = open_shards([path])
            records = [parse(source[i]) for i in range(len(source))]
            write_shard(target, lesson.taught(records) if split == "train" else records)
        written[target.name] = read_summary(target)
        progress.report(len(written), target.name)
    files = {key: {name: facts[value] for name, facts in written.items()} for key, value in FACTS.items()}
    write_manifest(out, manifest | files | {TAUGHT: {"teacher": teacher.name, "draws": options.draws}})
    return read_manifest(out)


def _jobs(data: Path, out: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, Path, Path]]:
    """The split, the file and the new file of each shard."""
    for split in manifest["splits"]:
        if has_split(data, split):
            for shape, paths in shards(data, split).items():
                for i, path in enumerate(paths):
                    yield split, path, shard_path(out, split, shape, i, len(paths))


def _check_same_inputs(teacher: Run, data: Path, manifest: dict[str, Any]) -> None:
    teacher.check_teaches()
    config = teacher.denoiser.config
    if LatentStats.load(data / VAE) != LatentStats.load(teacher.path / VAE):
        raise UserError(f"{data} holds latents of another VAE than {teacher} was trained on: encode them with its own")
    for key in ("text_encoder", "text_width"):
        if manifest[key] != getattr(config, key):
            raise UserError(
                f"{data} has {key}={manifest[key]}, {teacher} {getattr(config, key)}: encode it for this one"
            )
    if manifest["text_tokens"] > config.text_tokens:
        raise UserError(
            f"{data} has captions of {manifest['text_tokens']} tokens, {teacher} takes {config.text_tokens}"
        )


class _Lesson:
    """A teacher's predictions of noisy versions of records."""

    def __init__(self, teacher: Run, options: TeachOptions, empty: EmptyCaption | None, mesh: Mesh):
        self._denoiser, self._options, self._empty = teacher.denoiser, options, empty
        self._mesh, self._params = mesh, teacher.sharded_params(mesh)
        self._predict = jax.jit(self._prediction)

    def taught(self, records: list[Record]) -> list[Record]:
        """The records of one shape with the teacher's outputs."""
        size = self._options.batch_size
        for start in range(0, len(records), size):
            group = records[start : start + size]
            filled = [*group, *[group[-1]] * (size - len(group))]
            draws = [self._draw(filled, seeds) for seeds in np.stack([self._seeds(each) for each in filled], axis=1)]
            for i, record in enumerate(group):
                record[TAUGHT] = {key: np.stack([draw[key][i] for draw in draws]) for key in draws[0]}
        return records

    def _seeds(self, record: Record) -> np.ndarray:
        """The seeds of a record's versions, which depend on its id alone."""
        rng = np.random.default_rng([self._options.seed, zlib.crc32(record["id"].encode())])
        return rng.integers(1 << 32, size=self._options.draws, dtype=np.uint32)

    def _draw(self, records: list[Record], seeds: np.ndarray) -> dict[str, np.ndarray]:
        """One noisy version of each record, and its velocity."""
        states, mask = pad([record["text_states"] for record in records], self._denoiser.config.text_tokens)
        batch = {
            "latents": np.stack([record["latents"] for record in records]),
            "text": states,
            "text_mask": mask,
            "seed": seeds,
        }
        drawn = self._predict(self._params, put_batch(batch, self._mesh))
        return {"seed": seeds} | {key: np.asarray(value) for key, value in drawn.items()}

    def _prediction(self, params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        x0, seeds, denoiser = batch["latents"], batch["seed"], self._denoiser
        shift = denoiser.time_shift(int(np.prod(x0.shape[1:4])))

        def chance(seed: UInt32[Array, ""]) -> tuple[Array, Array]:
            key = jax.random.key(seed)
            t = sample_times(named_key(key, "times"), 1, shift=shift)[0]
            return t, jax.random.bernoulli(named_key(key, "captions"), self._options.caption_dropout)

        t, dropped = jax.vmap(chance)(seeds)
        text = without_captions(dropped, batch["text"], batch["text_mask"], self._empty)
        x_t = interpolate(x0, noise_of(seeds, x0.shape[1:]), t)
        return {"time": t, "dropped": dropped, "velocity": denoiser.velocity(params, x_t, t, *text).astype(jnp.float16)}
