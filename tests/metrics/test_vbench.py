"""VBench's results are read as it writes them and combined to the scores that its leaderboard shows."""

import json

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.vbench import DIMENSIONS, combined, normalised, prompt_of, read_results, totals

ORDER = (
    *("subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree"),
    *("aesthetic_quality", "imaging_quality", "object_class", "multiple_objects", "human_action", "color"),
    *("spatial_relationship", "scene", "appearance_style", "temporal_style", "overall_consistency"),
)
# The table of all dimensions in "Goku: Flow Based Video Generative Foundation Models" (arXiv 2502.04896), in percent:
# total, quality and semantic score, then the dimensions in the order above.
PUBLISHED = {
    "CogVideoX-5B": (
        *(81.61, 82.75, 77.04, 96.23, 96.52, 98.66, 96.92, 70.97, 61.98, 62.90),
        *(85.23, 62.11, 99.40, 82.81, 66.35, 53.20, 24.91, 25.38, 27.59),
    ),
    "Mira": (
        *(71.87, 78.78, 44.21, 96.23, 96.92, 98.29, 97.54, 60.33, 42.51, 60.16),
        *(52.06, 12.52, 63.80, 42.24, 27.83, 16.34, 21.89, 18.77, 18.72),
    ),
    "HunyuanVideo": (
        *(83.24, 85.09, 75.82, 97.37, 97.76, 99.44, 98.99, 70.83, 60.36, 67.56),
        *(86.10, 68.55, 94.40, 91.60, 68.68, 53.88, 19.80, 23.89, 26.44),
    ),
    "Goku-T2V": (
        *(84.85, 85.60, 81.87, 95.55, 96.67, 97.71, 98.50, 76.11, 67.22, 71.29),
        *(94.40, 79.48, 97.60, 83.81, 85.72, 57.08, 23.08, 25.64, 27.35),
    ),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_rows_give_their_published_totals(model):
    total, quality, semantic, *scores = np.array(PUBLISHED[model]) / 100
    computed = totals(dict(zip(ORDER, scores, strict=True)))
    # All figures are rounded to 0.01 %.
    assert computed == pytest.approx({"total": total, "quality": quality, "semantic": semantic}, abs=1e-4)


def test_four_parts_of_quality_and_one_of_semantics():
    assert round(combined(83.12, 74.76), 2) == 81.45  # as reported for the phone model of arXiv 2507.13343


def test_normalising_takes_the_ends_to_zero_and_one():
    assert normalised({name: one.low for name, one in DIMENSIONS.items()}) == dict.fromkeys(DIMENSIONS, 0.0)
    assert normalised({name: one.high for name, one in DIMENSIONS.items()}) == pytest.approx(dict.fromkeys(ORDER, 1.0))


def test_missing_dimensions_leave_their_totals_out():
    scores = dict.fromkeys(DIMENSIONS, 0.5)
    assert totals({name: score for name, score in scores.items() if name != "color"}).keys() == {"quality"}
    assert totals({"color": 0.5}) == {}


def videos(values, folder="out/videos"):
    """Five videos a prompt, one prompt a value."""
    return [
        {"video_path": f"{folder}/prompt no-{i}, said-{j}.mp4", "video_results": value}
        for i, value in enumerate(values)
        for j in range(5)
    ]


def write(path, **results):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results))
    return path


def test_a_folder_of_one_file_a_dimension_is_read_whole(tmp_path):
    write(tmp_path / "a" / "color_eval_results.json", color=[0.5, videos([0.25, 0.75])])
    write(tmp_path / "b" / "rest_eval_results.json", imaging_quality=[0.6, videos([50, 70])], human_action=[1.0, []])
    write(tmp_path / "a" / "color_full_info.json")
    results = read_results(tmp_path)
    scores = {name: one.score for name, one in results.items()}
    assert scores == {"color": 0.5, "imaging_quality": 0.6, "human_action": 1}
    assert results["imaging_quality"].videos["prompt no-1, said-4"] == 0.7
    assert results["color"].with_interval().n == 10
    assert results["human_action"].with_interval() == Score(1.0, None, None, 0)


def test_videos_of_one_prompt_count_once(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "x_eval_results.json", scene=[0.5, videos(rng.permutation(np.linspace(0, 1, 40)))])
    score = read_results(path)["scene"].with_interval()
    # Of 40 prompts, not of 200 videos: 1.96 deviations of a mean of 40.
    assert score.high - score.low == pytest.approx(2 * 1.96 * np.linspace(0, 1, 40).std() / 40**0.5, rel=0.05)


def test_no_interval_where_the_score_is_no_mean_of_the_videos(tmp_path):
    path = write(tmp_path / "x_eval_results.json", color=[0.9, videos([0.25, 0.75])])
    assert read_results(path)["color"].with_interval() == Score(0.9, None, None, 10)


def test_results_of_long_videos_are_read_by_video_not_by_piece(tmp_path):
    pieces = [{"video_path": "split_clip/a-0/a-0_000.mp4", "video_results": 0.0}]
    last = [{"video_path": "a-0.mp4", "video_results": 0.25}, {"long_video_cnt": 1}]
    path = write(tmp_path / "x_eval_results.json", temporal_flickering=[0.25, pieces, last])
    assert read_results(path)["temporal_flickering"].videos == {"a-0": 0.25}


def test_a_prompt_keeps_its_own_numbers():
    assert prompt_of("a ring, take-2-4") == "a ring, take-2"


BAD = {
    "nothing": (None, "holds no *_eval_results.json"),
    "cut": ('{"color": [0.5', "holds no results of VBench"),
    "list": ("[1, 2]", "holds no results of VBench"),
    "text": ('{"color": ["high", []]}', "holds no results of VBench"),
    "videos": ('{"color": [0.5, [{"video_path": "a-0.mp4"}]]}', "holds no results of VBench"),
    "other": ('{"camera_motion": [0.5, []]}', "'camera_motion', which is none of VBench's 16"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_result_is_refused(tmp_path, name):
    text, words = BAD[name]
    if text is not None:
        (tmp_path / "x_eval_results.json").write_text(text)
    with pytest.raises(UserError, match=words.replace("*", "\\*")):
        read_results(tmp_path)


def test_a_dimension_found_twice_is_refused(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}_eval_results.json", color=[0.5, []])
    with pytest.raises(UserError, match="has color twice, again in b_eval_results.json"):
        read_results(tmp_path)
    with pytest.raises(UserError, match="do not open: No such file"):
        read_results(tmp_path / "c.json")
