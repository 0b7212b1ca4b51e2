"""Layouts on a mesh: kinds of attention and resolutions give the losses and gradients of one device."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.stages.dit import DitStage
from tests import tiny
from tests.commands import call
from tests.parallel.test_sequence import gradients

LAYOUT = (("lcha", 1), ("chunked", 1), ("ssa", 1), ("full", 2))
MODEL = dataclasses.replace(
    tiny.DIT, heads=4, depth=4, layout=LAYOUT, causal=True, attention_window=1, scan=True, remat="dots"
)
SHARDED = {"tensor": MeshConfig(2, 2, 2), "sequence": MeshConfig(2, 2, 1, 2)}


def compare(out: Path, mesh: str) -> None:
    stages = [DitStage(tiny.dit_config(Path(), model=MODEL, mesh=config)) for config in (MeshConfig(), SHARDED[mesh])]
    devices = (jax.devices()[:1], jax.devices()[:8])
    (one, _), (many, _) = (gradients(*pair) for pair in zip(stages, devices, strict=True))
    errors = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one, many)
    out.write_text(json.dumps(jax.tree.leaves(errors)))


@pytest.mark.slow  # compiles a gradient for 8 devices
@pytest.mark.parametrize("mesh", SHARDED)
def test_devices_change_neither_loss_nor_gradients_of_a_layout(mesh, tmp_path):
    done = call(compare, tmp_path / "report", mesh, devices=8)
    assert done.status == 0, done.err
    assert max(json.loads((tmp_path / "report").read_text())) < 1e-4
