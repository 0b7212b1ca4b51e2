"""The benchmarks of each suite, ours beside a peer."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

import jax

from configs import dit, vae
from export.peer.ltx_decoder import LtxDecoder, dit_peer
from mobile_video_jax.bench import dit as benchmark_dit
from mobile_video_jax.bench import vae as benchmark_vae
from mobile_video_jax.bench.lazy import lazy_sample
from mobile_video_jax.bench.timing import Row
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.nn.config import Dtype
from mobile_video_jax.pods.automatic import automatic, topology_of
from mobile_video_jax.pods.measured_step import measure_step
from mobile_video_jax.stages.config import DitTraining, VaeTraining
from mobile_video_jax.train.synthetic import SYNTHETIC
from mobile_video_jax.vae.family import family_member

COMPRESSION = "t8_s32_c128"
FRAMES = (17, 49, 193)
# A step of these takes about a second on two cores.
CPU_DIT = DitConfig(width=512, depth=8, heads=8, head_dim=64, ffn=2048, rope_theta=10_000.0, dtype="bfloat16")
CPU_CLIP = "49x192x256"
# Both sides' states, 40 GB each, and what they keep for the backward pass fit into 139 GB.
BATCH_SIZES = {"cpu": 2, "gpu": 4}
TPU_STEPS = 20
CEILING_SIDES = {"cpu": 2048, "gpu": 16_384}


def benchmarks(suite: str, clip: ClipShape, batch: int | None, repeats: int) -> dict[str, Callable[[], Iterable[Row]]]:
    """The benchmarks by name."""
    if suite == "tpu":
        return {"dit_train": lambda: [server_step(batch)]}
    dtypes: dict[str, Dtype] = {"cpu": "float32", "gpu": "bfloat16"}
    dtype, device = dtypes[suite], {"cpu": "cpu", "gpu": "cuda"}[suite]
    models = {size: replace(family_member(size, COMPRESSION), dtype=dtype) for size in ("mobile", "full")}
    clips = [ClipShape(frames, 256, 256) for frames in FRAMES]
    training = from_mapping(VaeTraining, vae.get_config("tiny_t4_s8_c16").to_dict())
    steps = benchmark_dit.Steps(dit_training(suite, batch or BATCH_SIZES[suite]), CEILING_SIDES[suite], repeats)
    return {
        "vae_decode": lambda: benchmark_vae.vae_decode(models, LtxDecoder(dtype, device), clip, repeats),
        "vae_memory": lambda: benchmark_vae.vae_memory(models["mobile"], clips, repeats),
        "vae_tiles": lambda: benchmark_vae.vae_tiles(models["mobile"], 512, 256, 64, repeats),
        "vae_losses": lambda: benchmark_vae.vae_losses(training, benchmark_vae.LOSS_TERMS, repeats),
        "dit_train": lambda: [benchmark_dit.dit_train(steps, torch_dit(steps.config, device))],
        "dit_sample": lambda: [benchmark_dit.dit_sample(steps, torch_dit(steps.config, device))],
        "lazy_sample": lambda: [lazy_sample(steps)],
    }


def server_step(batch_size: int | None) -> Row:
    """The server transformer's step on the TPUs that are there, beside its estimate."""
    server = replace(from_mapping(DitTraining, dit.get_config("server").to_dict()), data=SYNTHETIC)
    topology, fixed = topology_of(jax.devices()), {"batch_size": batch_size} if batch_size else {}
    values = automatic(asdict(server), topology, fixed) if topology else asdict(server)
    return measure_step(from_mapping(DitTraining, values), jax.devices(), TPU_STEPS)


def dit_training(suite: str, batch_size: int) -> DitTraining:
    """On a GPU the server transformer at 1,344 tokens; on the CPU one of 36 M parameters at 336."""
    server = from_mapping(DitTraining, dit.get_config("server").to_dict())
    common = replace(server, batch_size=batch_size, image_probability=0.0)
    if suite == "cpu":
        return replace(common, clip=CPU_CLIP, model=CPU_DIT)
    return replace(common, model=replace(server.model, remat="dots"))


def torch_dit(config: DitTraining, device: str) -> benchmark_dit.PeerDit:
    """The config's transformer in PyTorch."""
    peer: benchmark_dit.PeerDit = dit_peer(config.transformer, Denoiser(config).latent_shape, config.text_width, device)
    return peer
