"""A clip drawn by a folder's packages alone, as an app draws it: manifest.json and the files that it names are all
that is known. The evaluator takes Core ML's place."""

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from export.mil.evaluate import evaluate
from export.mil.load import load_package

Tensors = dict[str, np.ndarray]


class App:
    """The packages of a folder, for clips of one of its shapes; `packages` is a folder of others of the same names.

    A package is read when it is first called, and kept.
    """

    def __init__(self, folder: Path, function: str, packages: Path | None = None):
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        self.clip = next(clip for clip in self.manifest["clips"] if clip["function"] == function)
        self.records = {record["name"]: record for record in self.manifest["packages"]}
        self.folder, self.packages = folder, packages or folder
        self.loaded: dict[str, Any] = {}

    def draw(self, prompt: str, noise: np.ndarray, progress: Callable[[str], None]) -> Tensors:
        """The clip of a prompt from noise [1, c, 1, s], s over time, rows and columns: its latents [1, c, 1, s], and
        `video`, frames [t, h, w, 3] in bytes."""
        progress("clip: text")
        latents = self._denoised(self._text(prompt), noise, progress)
        progress("clip: frames")
        return {"latents": latents, "video": self._frames(latents)}

    def tokens(self, prompt: str) -> Tensors:
        """Token ids, padded, and the mask of ones for tokens."""
        text = self.manifest["text"]
        found = Tokenizer.from_file(str(self.folder / "tokenizer.json")).encode(prompt).ids
        ids = np.full((1, text["tokens"]), text["pad_id"], np.int32)
        ids[0, : len(found)] = found
        mask = np.arange(text["tokens"]) < len(found)
        return {"ids": ids, "text_mask": mask.astype(np.float32)[None, None, None]}

    def _text(self, prompt: str) -> Tensors:
        tokens = self.tokens(prompt)
        return {**self._call("text", tokens), "text_mask": tokens["text_mask"]}

    def _denoised(self, text: Tensors, noise: np.ndarray, progress: Callable[[str], None]) -> np.ndarray:
        """Euler's steps from noise to latents."""
        chunks = [name for name in self.records if name.startswith("dit")]
        times, features = self.clip["times"], np.asarray(self.clip["time_features"], np.float32)
        latents = self.manifest["sampler"]["noise_scale"] * noise
        for i, (start, end) in enumerate(itertools.pairwise(times)):
            progress(f"clip: step {i + 1} of {len(times) - 1}")
            given = {**text, "latents": latents, "time_features": features[i][None, :, None, None]}
            for name in chunks:
                given |= self._call(name, given)
            latents = latents + np.float32(end - start) * given["velocity"]
        return latents

    def _frames(self, latents: np.ndarray) -> np.ndarray:
        times, rows, columns, channels = self.clip["latent_shape"]
        mean, std = (np.asarray(self.manifest["latents"][key], np.float32)[:, None, None] for key in ("mean", "std"))
        z = latents.reshape(channels, times, rows, columns).swapaxes(0, 1) * std + mean
        video = [self._call("vae", {"latents": z})["video"]] if "vae" in self.records else self._streamed(z)
        low, high = self.manifest["pixels"]
        levels = np.round((np.concatenate(video).astype(np.float32) - low) * (255 / (high - low)))
        return np.moveaxis(np.clip(levels, 0, 255).astype(np.uint8), 1, -1)

    def _streamed(self, z: np.ndarray) -> list[np.ndarray]:
        """Frames chunk by chunk: what a call leaves as kept_NAME the next one takes as past_NAME."""
        found = self._call("vae_first", {"latents": z[:1]})
        video = [found["video"]]
        for i in range(1, len(z)):
            past = {name.replace("kept_", "past_", 1): x for name, x in found.items()}
            found = self._call("vae_next", {**past, "latents": z[i : i + 1]})
            video.append(found["video"])
        return video

    def _call(self, name: str, given: Mapping[str, np.ndarray]) -> Tensors:
        """A package's outputs in float32, for those of the given tensors that it takes."""
        record = self.records[name]
        if name not in self.loaded:
            self.loaded[name] = load_package(self.packages / record["file"])
        function = self.clip["function"] if self.clip["function"] in record["functions"] else None
        program = self.loaded[name].function(function)
        found = evaluate(program, {feature: given[feature] for feature in program.inputs}).outputs
        return {feature: x.astype(np.float32) for feature, x in found.items()}
