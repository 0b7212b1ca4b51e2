"""Runs the whole chain in minutes on two cores: python -m launch.demo --out=DIR [--config=configs/demo.py]

Writes DIR/report.html, DIR/report.json and DIR/videos/*.mp4. Started again, it resumes where it stopped.
"""

from mobile_video_jax import cli
from mobile_video_jax.demo.config import DemoConfig

CONFIG = cli.define_config(lambda values: DemoConfig, "The demo's config.", default=lambda: "demo")
OUT = cli.require_path("out", "The folder for everything that the demo makes.", local=True)


def main() -> None:
    from mobile_video_jax.core.claim import check_holds_only
    from mobile_video_jax.core.lock import only_writer
    from mobile_video_jax.demo.report import write_demo_report
    from mobile_video_jax.demo.run import CONTENT, run_demo

    out = OUT.value
    check_holds_only(out, CONTENT, "demo")
    with only_writer(out):
        numbers = write_demo_report(run_demo(CONFIG.value, out))
    accuracy = {name: row["value"] for name, row in numbers["samples"]["accuracy"].items()}
    summary = {"out": str(out), "accuracy": accuracy, "psnr": numbers["vae"]["psnr"]}
    cli.finish(out / "report.html", summary)


if __name__ == "__main__":
    cli.run(main, config=CONFIG)
