"""Imports go one way, and only export/ knows torch and coremltools."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Left never imports right.
ORDER = (
    *("core", "parallel", "nn", "vae", "text", "dit", "interop", "discriminator", "diffusion", "prune", "distill"),
    *("data", "evals", "train", "stages", "launch"),
)
SIBLINGS = {"vae", "text", "dit"}
TORCH = {"torch", "diffusers", "coremltools", "tensorflow"}
# The speed benchmark takes its PyTorch peer from export/; nothing else reaches into it.
PEERS = ("launch/benchmark.py", "export.peers")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def room(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] == "mobile_video_jax" and len(parts) > 1:
        return parts[1]
    return parts[0] if parts[0] in ("launch", "configs", "export") else None


def test_every_folder_has_its_place():
    folders = {path.parent.name for path in ROOT.glob("mobile_video_jax/*/__init__.py")}
    assert folders == set(ORDER) - {"launch"}


def test_imports_go_one_way():
    wrong = []
    for path in [*ROOT.glob("mobile_video_jax/*/**/*.py"), *ROOT.glob("launch/*.py")]:
        here = path.relative_to(ROOT).parts[1 if path.is_relative_to(ROOT / "mobile_video_jax") else 0]
        for name in imported(path):
            there = room(name)
            if there in ORDER and ORDER.index(there) > ORDER.index(here):
                wrong.append((str(path), name))
            if {here, there} <= SIBLINGS and here != there:
                wrong.append((str(path), name))
            to_export = there == "export" and (str(path.relative_to(ROOT)), name) != PEERS
            if to_export or (there == "configs" and here != "launch"):
                wrong.append((str(path), name))
    assert not wrong


def test_only_export_knows_torch():
    files = [path for folder in ("mobile_video_jax", "configs", "launch") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 40
    assert not [str(path) for path in files if {name.split(".")[0] for name in imported(path)} & TORCH]
