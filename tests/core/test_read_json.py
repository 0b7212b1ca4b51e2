"""JSON files that parse but are not ours end in one line that names the file."""

import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json
from mobile_video_jax.vae.latent_stats import LatentStats


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no file here"),
        ("{", r"facts\.json is damaged \(.*\): make it again"),
        ("[]", r"facts\.json holds no settings: make it again"),
        ("null", r"facts\.json holds no settings: make it again"),
        ('{"a": 1}', r"facts\.json says nothing of b: make it again"),
    ],
)
def test_what_is_missing_damaged_or_foreign_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "facts.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_json(tmp_path / "facts.json", "a", "b", missing="no file here", advice="make it again")


@pytest.mark.parametrize("text", ['{"mean": [NaN], "std": [1.0]}', '{"mean": "x", "std": [1.0]}', "[]", '{"mean": []}'])
def test_latent_statistics_are_finite_numbers(tmp_path, text):
    (tmp_path / "latents.json").write_text(text)
    with pytest.raises(UserError, match=r"latents\.json .*: train the VAE's last step again"):
        LatentStats.load(tmp_path)
