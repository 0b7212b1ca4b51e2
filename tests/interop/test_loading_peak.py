"""An import holds the parameters that it writes and, beside them, less than 1.3 shards."""

import contextlib
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.commands import start
from tests.interop.test_wan_pipeline import make_wan
from tests.interop.test_wan_transformer import SIZES
from tests.text.test_sentencepiece import SIZES as TEXT_SIZES

LARGE = {"num_attention_heads": 8, "attention_head_dim": 96, "ffn_dim": 3072, "num_layers": 6}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_import_holds_less_than_1_3_shards_beside_what_it_writes(tmp_path, monkeypatch, dtype):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_wan(tmp_path / "pipeline")
    others = peak_bytes(tmp_path / "pipeline", tmp_path / "small")
    sizes = SIZES | LARGE | {"in_channels": 3, "out_channels": 3, "text_dim": TEXT_SIZES["d_model"]}
    transformer = diffusers.WanTransformer3DModel(**sizes).to(getattr(torch, dtype))
    shutil.rmtree(tmp_path / "pipeline" / "transformer")
    transformer.save_pretrained(tmp_path / "pipeline" / "transformer", max_shard_size="50MB")
    shards = [path.stat().st_size for path in (tmp_path / "pipeline" / "transformer").glob("*.safetensors")]
    parameters = 4 * sum(x.numel() for x in transformer.parameters())
    peak = peak_bytes(tmp_path / "pipeline", tmp_path / "large")
    beside = peak - others - parameters
    print(f"{dtype}: {peak=:,} {others=:,} {parameters=:,} {beside=:,} largest shard {max(shards):,}")
    assert len(shards) > 2 and beside <= 1.3 * max(shards)


def peak_bytes(source: Path, out: Path) -> int:
    """The most memory of an import's process, without pages of mapped files."""
    command = start("launch.import_weights", f"--source={source}", f"--out={out}", "--clip=5x32x32")
    peak = 0
    while command.process.is_alive():
        with contextlib.suppress(OSError):  # it has just ended
            status = Path(f"/proc/{command.process.pid}/status").read_text()
            peak = max(peak, *(1024 * int(size) for size in re.findall(r"RssAnon:\s+(\d+) kB", status)), 0)
        time.sleep(0.005)
    assert command.finish().status == 0
    return peak
