"""The whole chain in minutes on two cores: python -m launch.demo --out=DIR [--config=configs/demo.py]

Writes DIR/report.html, DIR/report.json and DIR/videos/*.mp4. Started again, it goes on where it stopped.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from mobile_video_jax import cli
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.lock import only_writer
from mobile_video_jax.demo.config import DemoConfig
from mobile_video_jax.demo.report import write_demo_report
from mobile_video_jax.demo.run import run_demo

CONFIG = config_flags.DEFINE_config_file("config", "configs/demo.py", "The demo's config.")
OUT = flags.DEFINE_string("out", None, "The folder for everything that the demo makes.", required=True)


def main() -> None:
    out = Path(OUT.value)
    config = from_mapping(DemoConfig, CONFIG.value.to_dict())
    with only_writer(out):
        numbers = write_demo_report(run_demo(config, out))
    accuracy = {name: row["value"] for name, row in numbers["samples"]["accuracy"].items()}
    summary = {"out": str(out), "accuracy": accuracy, "psnr": numbers["vae"]["psnr"]}
    cli.finish(out / "report.html", summary)


if __name__ == "__main__":
    cli.run(main)
