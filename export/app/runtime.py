"""The app's runtime in Python: a clip from a prompt, by manifest.json and the files that it names alone.

The evaluator takes Core ML's place.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from tokenizers import Tokenizer

from export.mil.evaluate import evaluate
from export.mil.load import load_package
from mobile_video_jax.core.files import read_json

Tensors = dict[str, np.ndarray]
Row = Float[np.ndarray, "1 c 1 s"]
FreshNoise = Float[np.ndarray, "later c 1 s"]


class App:
    """The packages of a folder, for clips of one of its shapes.

    `packages` is another folder with packages of the same names. A package is read at its first call.
    """

    def __init__(self, folder: Path, function: str, packages: Path | None = None):
        self.manifest: dict[str, Any] = read_json(folder / "manifest.json", "clips", "packages")
        self.clip = next(clip for clip in self.manifest["clips"] if clip["function"] == function)
        self.records = {record["name"]: record for record in self.manifest["packages"]}
        self.folder, self.packages = folder, packages or folder
        self.loaded: dict[str, Any] = {}

    def generate(
        self,
        prompt: str,
        noise: Float[np.ndarray, "1 c 1 s"],
        progress: Callable[[str], None],
        fresh_noise: Float[np.ndarray, "later c 1 s"] | None = None,
    ) -> Tensors:
        """The clip of a prompt: `latents` [1, c, 1, s] and `video`, frames [t, h, w, 3] in bytes.

        The s latent positions of the noise go over time, then rows, then columns. `fresh_noise` is that of later steps
        of a sampler that noises afresh.
        """
        progress("clip: text")
        latents = self._denoise(self._encode(prompt), noise, fresh_noise, progress)
        progress("clip: frames")
        return {"latents": latents, "video": self._decode(latents)}

    def tokens(self, prompt: str) -> Tensors:
        """Token ids, padded, and their mask. Ids that do not fit are dropped, but for the closing one."""
        text = self.manifest["text"]
        tokens = Tokenizer.from_file(str(self.folder / "tokenizer.json")).encode(prompt).ids
        if len(tokens) > text["tokens"]:
            tokens = [*tokens[: text["tokens"] - 1], text["closing_id"]]
        ids = np.full((1, text["tokens"]), text["pad_id"], np.int32)
        ids[0, : len(tokens)] = tokens
        mask = np.arange(text["tokens"]) < len(tokens)
        return {"ids": ids, "text_mask": mask.astype(np.float32)[None, None, None]}

    def _encode(self, prompt: str) -> Tensors:
        """The prompt's text states and their mask."""
        tokens = self.tokens(prompt)
        return {**self._call("text", tokens), "text_mask": tokens["text_mask"]}

    def _denoise(
        self, text: Tensors, noise: Row, fresh_noise: FreshNoise | None, progress: Callable[[str], None]
    ) -> Row:
        """Latents of a whole clip, or of a stream chunk by chunk."""
        noise = self.manifest["sampler"]["noise_scale"] * noise
        if "stream" in self.clip:
            return np.concatenate([*self._chunks(text, noise, fresh_noise, progress)], axis=3)
        functions = self.clip.get("step_functions", [self.clip["function"]] * (len(self.clip["times"]) - 1))
        return self._steps(text, noise, fresh_noise, functions, progress)[0]

    def _chunks(
        self, text: Tensors, noise: Row, fresh_noise: FreshNoise | None, progress: Callable[[str], None]
    ) -> Iterator[Row]:
        """Latents of the first frame, then of each chunk, behind the state of those before.

        A call at time 0 with the finished latents renews the state; what the calls of the steps keep is no state. It
        may be for later steps, and for the same steps of the chunk behind, whose functions are the reusing ones.
        """
        stream, (frames, rows, columns, _) = self.clip["stream"], self.clip["latent_shape"]
        past: Tensors = {}
        before: list[Tensors] = []
        for start in [0, *range(1, frames, stream["chunk_frames"])]:
            stop = start + stream["chunk_frames"] if start else 1
            own = slice(start * rows * columns, stop * rows * columns)
            function = stream["next" if start else "first"]
            inputs = {**text, **past, "frames_before": np.full((1, 1, 1, 1), start, np.float32)}
            fresh = None if fresh_noise is None else fresh_noise[..., own]
            steps = "reusing_steps" if before else "next_steps" if start else "first_steps"
            functions = stream.get(steps, [function] * (len(self.clip["times"]) - 1))
            latents, kept = self._steps(inputs, noise[..., own], fresh, functions, progress, before)
            before = kept if start and not before and "reusing_steps" in stream else []
            past = _past(self._velocity(inputs, latents, stream["renewal_features"], function))
            yield latents

    def _steps(
        self,
        inputs: Tensors,
        latents: Row,
        fresh_noise: FreshNoise | None,
        functions: Sequence[str],
        progress: Callable[[str], None],
        before: Sequence[Tensors] = (),
    ) -> tuple[Row, list[Tensors]]:
        """Euler's steps from noise to latents, or predictions of x0 that are noised afresh; and what each step kept.

        `before` is what the same steps of a stream's chunk before have kept.
        """
        times = self.clip["times"]
        by_table = "step_functions" in self.clip or "first_steps" in self.clip.get("stream", {})
        held: Tensors = {}  # outputs of steps before, for steps that do without their modules
        kept: list[Tensors] = []
        for i, (start, end) in enumerate(itertools.pairwise(times)):
            progress(f"clip: step {i + 1} of {len(times) - 1}")
            held |= before[i] if before else {}
            tensors = self._velocity({**inputs, **held}, latents, self.clip["time_features"][i], functions[i])
            if by_table:
                kept.append(_past(tensors))
                held |= kept[-1]
            if fresh_noise is None:
                latents = latents + np.float32(end - start) * tensors["velocity"]
            else:
                latents = np.float32(1 - end) * (latents - np.float32(start) * tensors["velocity"])
                latents += np.float32(end) * fresh_noise[i : i + 1] if end else 0
        return latents, kept

    def _velocity(self, inputs: Tensors, latents: Row, time_features: Sequence[float], function: str) -> Tensors:
        """The inputs and all outputs of one evaluation, by the transformer's packages in order."""
        features = np.asarray(time_features, np.float32)[None, :, None, None]
        tensors = {**inputs, "latents": latents, "time_features": features}
        for name in self.records:
            if name.startswith("dit"):
                tensors |= self._call(name, tensors, function)
        return tensors

    def _decode(self, latents: Float[np.ndarray, "1 c 1 s"]) -> UInt8[np.ndarray, "t h w 3"]:
        times, rows, columns, channels = self.clip["latent_shape"]
        mean, std = (np.asarray(self.manifest["latents"][key], np.float32)[:, None, None] for key in ("mean", "std"))
        z = latents.reshape(channels, times, rows, columns).swapaxes(0, 1) * std + mean
        chunks = [self._call("vae", {"latents": z})["video"]] if "vae" in self.records else self._decode_in_chunks(z)
        low, high = self.manifest["pixels"]
        levels = np.round((np.concatenate(chunks).astype(np.float32) - low) * (255 / (high - low)))
        return np.moveaxis(np.clip(levels, 0, 255).astype(np.uint8), 1, -1)

    def _decode_in_chunks(self, z: Float[np.ndarray, "t c h w"]) -> list[np.ndarray]:
        """Frames [t, 3, h, w] of each latent frame: a call's outputs kept_NAME are past_NAME of the next."""
        outputs = self._call("vae_first", {"latents": z[:1]})
        video = [outputs["video"]]
        for i in range(1, len(z)):
            outputs = self._call("vae_next", {**_past(outputs), "latents": z[i : i + 1]})
            video.append(outputs["video"])
        return video

    def _call(self, name: str, tensors: Mapping[str, np.ndarray], function: str = "") -> Tensors:
        """A package's outputs in float32; of the tensors it takes the ones that are its inputs.

        Of several functions it calls the one of that name, or that of the clip.
        """
        record, function = self.records[name], function or self.clip["function"]
        if name not in self.loaded:
            self.loaded[name] = load_package(self.packages / record["file"])
        program = self.loaded[name].function(function if function in record["functions"] else None)
        outputs = evaluate(program, {feature: tensors[feature] for feature in program.inputs}).outputs
        return {feature: x.astype(np.float32) for feature, x in outputs.items()}


def _past(outputs: Mapping[str, np.ndarray]) -> Tensors:
    """The outputs kept_NAME of a call, as inputs past_NAME of a later one."""
    kept = {name: x for name, x in outputs.items() if name.startswith("kept_")}
    return {name.replace("kept_", "past_", 1): x for name, x in kept.items()}
