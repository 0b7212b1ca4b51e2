"""What a package says of itself: author, licence, version, and the run that it was written from."""

import dataclasses
from importlib.metadata import version
from pathlib import Path

PROJECT = "mobile-video-jax"
UNSTATED = "not stated"


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The metadata of all packages of a folder."""

    author: str = UNSTATED
    licence: str = UNSTATED  # of the weights
    run: str = ""  # the folder that the weights are from
    commit: str = ""  # of this project, when it was written
    weights: str = "fp16"  # their kind

    @property
    def version(self) -> str:
        """This project's version."""
        return version(PROJECT)

    @property
    def custom(self) -> dict[str, str]:
        """The keys that neither Core ML nor Core AI has a field for."""
        producer = f"{PROJECT} {self.version}"
        return {"run": Path(self.run).name, "commit": self.commit, "weights": self.weights, "producer": producer}

    def describe(self, name: str) -> str:
        """One line on the package of that name."""
        return f"{name} of a video diffusion transformer, from the run {Path(self.run).name or UNSTATED}"
