"""Train, shrink, distil and ship a video diffusion transformer for phones.

import mobile_video_jax as mvj

model = mvj.load("runs/distilled")
clips = model.generate("a red circle moving left", seed=1)
clips.save("circle.mp4")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobile_video_jax.generate.generator import Generator


def load(run: Any, **options: Any) -> "Generator":
    """The text-to-video model of a run directory, a path or gs://BUCKET/NAME; `options` as for Generator.load."""
    # Imported here, so that importing the package starts neither jax nor flax.
    from mobile_video_jax.generate.generator import Generator

    return Generator.load(run, **options)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mobile-video-jax")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
