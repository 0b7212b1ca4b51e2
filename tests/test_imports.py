"""Imports go one way, and only export/ knows torch and coremltools."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Left never imports right. The README shows the same tuple.
ORDER = (
    "core", "weights", "cost", "parallel", "cli", "nn", "text",
    "dit", "unet", "vae", "diffusion", "distill", "data", "report",
    "metrics", "train", "models", "latents", "generate", "rewards", "stages", "prune", "search", "lazy", "interop",
    "evaluate", "bench",
    "pods", "studies", "demo", "export", "configs", "launch",
)  # fmt: skip
TOP = ("export", "configs", "launch")
TORCH = {"torch", "diffusers", "coremltools", "coreai", "coreai_torch", "tensorflow"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def room(parts: tuple[str, ...]) -> str | None:
    """The entry of ORDER that a path or dotted module name belongs to, None for what is not of this project."""
    if parts[0] == "mobile_video_jax":
        return parts[1].removesuffix(".py") if len(parts) > 1 else None
    return parts[0] if parts[0] in TOP else None


def test_every_folder_has_its_place():
    folders = {path.parent.name for path in ROOT.glob("mobile_video_jax/*/__init__.py")}
    assert folders | {"cli", *TOP} == set(ORDER)


def test_imports_go_one_way():
    files = [path for folder in ("mobile_video_jax", *TOP) for path in (ROOT / folder).rglob("*.py")]
    rooms = {path: room(path.relative_to(ROOT).parts) for path in files}
    wrong = []
    for path, here in rooms.items():
        for name in imported(path) if here in ORDER else ():
            there = room(tuple(name.split(".")))
            if there in ORDER and ORDER.index(there) > ORDER.index(here):
                wrong.append((str(path.relative_to(ROOT)), name))
    assert not wrong


def test_only_export_knows_torch():
    files = [path for folder in ("mobile_video_jax", "configs", "launch") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 40
    assert not [str(path) for path in files if {name.split(".")[0] for name in imported(path)} & TORCH]
