"""Encoding a data set: latents and text states, shard by shard, resumable and shared by processes."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.data.dataset import read_manifest
from mobile_video_jax.data.latents import shard_path, write_manifest, write_shard
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.parallel.mesh import MeshConfig, check_batch, make_mesh
from mobile_video_jax.stages.bundle import VaeBundle, check_rows, copy_bundle, on_mesh
from mobile_video_jax.text.encoder import TextEncoder, load_text_encoder
from mobile_video_jax.train.progress import Progress
from mobile_video_jax.train.run import read_run


def encode_dataset(
    vae_run: Path,
    data: Path,
    out: Path,
    *,
    clip: str,
    text_encoder: str,
    batch_size: int,
    shard_records: int,
    rows: int = 1,
) -> dict[str, Any]:
    """Encodes every split of a video data set and returns the manifest.

    Finished shards are kept, so a stopped job goes on where it was. Processes take shards in turn, and a process's
    devices share every batch; `rows` of them share each clip. The manifest comes last: a folder without one is not
    finished. Raises UserError where `out` was made from other inputs.
    """
    bundle, encoder = VaeBundle.load(vae_run), load_text_encoder(text_encoder)
    shape = ClipShape.parse(clip or read_run(vae_run)["description"]["clip"]).check(bundle.vae.config.strides)
    splits = {
        split: {"records": count, "shards": -(-count // shard_records)}
        for split, count in read_manifest(data)["splits"].items()
    }
    manifest = {
        "clip": str(shape),
        "compression": str(bundle.vae.config.strides),
        "text_encoder": encoder.name,
        "text_width": encoder.width,
        "vae": read_run(vae_run),
        "source": read_manifest(data),
        "splits": splits,
    }
    for split in (name for name, sizes in splits.items() if sizes["records"]):
        captioned_clips(data, split, shape)  # raises for clips that do not fit, before anything is written
    mesh = make_mesh(MeshConfig(data=-1, tensor=rows), jax.local_devices())
    check_batch(batch_size, mesh)
    check_rows(bundle, shape, rows)
    _claim(out, manifest)
    copy_bundle(vae_run, out / "vae")
    _encode_missing_shards(bundle, mesh, encoder, data, out, shape, splits, batch_size, shard_records)
    if jax.process_index() == 0:
        write_manifest(out, manifest)
    return manifest


def _claim(out: Path, manifest: dict[str, Any]) -> None:
    """Marks a new folder with its inputs, or checks that an existing one has the same."""
    out.mkdir(parents=True, exist_ok=True)
    claim, text = out / "inputs.json", json.dumps(manifest, indent=1, sort_keys=True)
    if not claim.exists():
        if any(out.iterdir()):
            raise UserError(f"{out} is not empty and holds no encoded data set: name another --out")
        with replacing(claim) as temporary:
            temporary.write_text(text)
    elif claim.read_text() != text:
        raise UserError(f"{out} was encoded from another VAE, data set, clip or text encoder: name another --out")


def _encode_missing_shards(
    bundle: VaeBundle,
    mesh: Mesh,
    encoder: TextEncoder,
    data: Path,
    out: Path,
    shape: ClipShape,
    splits: dict[str, dict[str, int]],
    batch_size: int,
    shard_records: int,
) -> None:
    encode, _ = on_mesh(bundle, mesh)
    progress = Progress("encode:", sum(split["records"] for split in splits.values()))
    done = 0
    for split, sizes in splits.items():
        for shard in range(sizes["shards"]):
            path = shard_path(out, split, shard, sizes["shards"])
            first, last = shard * shard_records, min((shard + 1) * shard_records, sizes["records"])
            if shard % jax.process_count() == jax.process_index() and not path.exists():
                clips = captioned_clips(data, split, shape, range(first, last))
                write_shard(path, list(_encoded(encode, encoder, clips, batch_size)))
                progress.report(done + last - first, f"{split} shard {shard + 1}/{sizes['shards']}")
            done += last - first


def _encoded(
    encode: Callable[[np.ndarray], np.ndarray], encoder: TextEncoder, clips: Iterable[dict[str, Any]], batch_size: int
) -> Iterator[dict[str, Any]]:
    clips, known = iter(clips), dict[str, np.ndarray]()
    while group := list(itertools.islice(clips, batch_size)):
        video = np.stack([clip["video"] for clip in group])
        # A short last batch is padded to the size that is compiled already.
        padded = np.concatenate([video, np.repeat(video[-1:], batch_size - len(group), axis=0)])
        latents = encode(padded)
        new = list({clip["caption"]: None for clip in group if clip["caption"] not in known})
        known |= dict(zip(new, encoder.encode(new), strict=True)) if new else {}
        for clip, row in zip(group, latents, strict=False):
            info = {key: clip[key] for key in ("caption", "id", "attributes")}
            yield {"latents": row, "text_states": known[clip["caption"]], **info}
