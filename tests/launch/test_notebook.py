"""The notebook of the tiny chain, run from its first cell to its last in a folder of its own."""

import os

import pytest

from tests.commands import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


@pytest.mark.slow
def test_the_notebook_trains_and_shows_a_clip(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(ROOT / "launch" / "tiny_chain.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    [shown] = [output for output in notebook.cells[-1].outputs if output.output_type == "execute_result"]
    assert "image/gif" in shown.data and (tmp_path / "clip.gif").stat().st_size > 1000
    samples = os.listdir(tmp_path / "tour" / "dit" / "samples" / "60")
    assert sorted(samples) == ["00000-a-red-square-moving-left.mp4", "00001-a-blue-cross-moving-up.mp4"]
