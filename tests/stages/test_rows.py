"""One clip over several devices, cut by rows: the result of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
import jax, numpy as np
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel.mesh import MeshConfig, make_mesh
from mobile_video_jax.stages.bundle import VaeBundle, on_mesh
from mobile_video_jax.stages.judge import over_devices
from tests import tiny

bundle = VaeBundle.load(tiny.vae_run(Path(sys.argv[1])))
video = np.random.default_rng(0).integers(0, 256, (2, 9, 64, 32, 3), np.uint8)
results = []
for sizes in ((1, 1, 1), (2, 1, 4), (1, 1, 8)):
    devices = jax.devices()[: int(np.prod(sizes))]
    encode, decode = on_mesh(bundle, make_mesh(MeshConfig(*sizes), devices))
    latents = encode(video)
    results.append((latents, decode(latents).astype(int)))
errors = {"latents": [], "pixels": []}
for latents, pixels in results[1:]:
    errors["latents"].append(float(np.abs(latents - results[0][0]).max()))
    errors["pixels"].append(int(np.abs(pixels - results[0][1]).max()))
for rows in (3, 16):
    try:
        over_devices(bundle, ClipShape(9, 128, 32), rows)
    except UserError as error:
        errors.setdefault("refused", []).append(str(error))
print(json.dumps(errors))
"""


def test_a_clip_cut_by_rows_codes_as_on_one_device(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "vae")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout.splitlines()[-1])
    assert max(errors["latents"]) < 1e-5 and max(errors["pixels"]) <= 1
    assert "cannot share the 16 rows" in errors["refused"][0] and "there are 8 devices" in errors["refused"][1]
