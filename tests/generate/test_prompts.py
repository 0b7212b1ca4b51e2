"""Lists of prompts: what is read from them, what is refused, and the names of files."""

import json
import os

import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.prompts import Request, file_names, make_requests, picture, read_requests
from tests.data.videos import greys, image_bytes, write_video


@pytest.fixture
def folder(tmp_path):
    """lists/ with an image in it, and one beside it."""
    (tmp_path / "lists" / "sub").mkdir(parents=True)
    for name in ("lists/sub/a.png", "outside.png"):
        (tmp_path / name).write_bytes(image_bytes(greys(1)[0], ".png"))
    os.symlink(tmp_path / "outside.png", tmp_path / "lists" / "link.png")
    os.symlink("loop.png", tmp_path / "lists" / "loop.png")
    return tmp_path / "lists"


def test_a_text_holds_a_prompt_a_line(folder):
    (folder / "a.txt").write_bytes("\ufeffa red circle\r\n\n  \n a café by night \n".encode())
    assert read_requests(folder / "a.txt", 7, []) == [Request("a red circle", 7), Request("a café by night", 8)]


def test_a_line_of_json_may_name_its_seed_and_image(folder):
    lines = [{"prompt": "one"}, {"prompt": "two", "seed": 3}, {"prompt": "three", "image": "sub/a.png"}]
    (folder / "a.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    named, other = folder / "sub" / "a.png", folder / "b.png"
    assert read_requests(folder / "a.jsonl", 10, []) == [
        Request("one", 10),
        Request("two", 3),
        Request("three", 12, named),
    ]
    assert [request.image for request in read_requests(folder / "a.jsonl", 10, [other])] == [other, other, named]


BAD_LINES = {
    '{"prompt": "a", "sed": 3}': 'a.jsonl:2: unknown key "sed": a line has prompt, seed, image',
    '{"seed": 3}': 'a.jsonl:2: it lacks "prompt"',
    '["a"]': 'a.jsonl:2: it lacks "prompt"',
    '{"prompt": "a"': "a.jsonl:2: it is not JSON",
    "[" * 100_000: "a.jsonl:2: it is not JSON",
    '{"prompt": " "}': "a.jsonl:2: the prompt ' ' has no words",
    '{"prompt": 3}': 'a.jsonl:2: "prompt" must be text',
    '{"prompt": "\\ud800"}': "a.jsonl:2: .* surrogates not allowed",
    '{"prompt": "a", "seed": "3"}': 'a.jsonl:2: "seed" must be a whole number',
    '{"prompt": "a", "seed": true}': 'a.jsonl:2: "seed" must be a whole number',
    '{"prompt": "a", "seed": -1}': "a.jsonl:2: seed -1 is out of range",
    '{"prompt": "a", "seed": 4294967296}': "a.jsonl:2: seed 4294967296 is out of range",
    '{"prompt": "a", "image": null}': 'a.jsonl:2: "image" must be text',
    **{
        json.dumps({"prompt": "a", "image": name}): "a.jsonl:2: there is no image"
        for name in ("none.png", "../outside.png", "link.png", "loop.png", "sub", "nul\0.png", "x" * 300)
    },
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40])
def test_a_bad_line_is_named(folder, line):
    (folder / "a.jsonl").write_text(f'{{"prompt": "good"}}\n{line}\n')
    with pytest.raises(UserError, match=BAD_LINES[line]):
        read_requests(folder / "a.jsonl", 0, [])


def test_an_absolute_path_is_no_image_of_the_list(folder):
    (folder / "a.jsonl").write_text(json.dumps({"prompt": "a", "image": str(folder.parent / "outside.png")}))
    with pytest.raises(UserError, match="there is no image"):
        read_requests(folder / "a.jsonl", 0, [])


def test_bad_lists_are_refused(folder):
    (folder / "empty.txt").write_text("\n \n")
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    for name, words in [
        ("none.txt", "does not open: No such file"),
        ("a.csv", "is a .txt or a .jsonl file"),
        ("empty.txt", "holds no prompts"),
        ("latin.txt", "latin.txt:1: .*codec can't decode"),
    ]:
        with pytest.raises(UserError, match=words):
            read_requests(folder / name, 0, [])
    with pytest.raises(UserError, match="give one image for all prompts of"):
        read_requests(folder / "a.txt", 0, [folder, folder])


def test_prompts_of_the_command_line_take_one_image_or_one_each(folder):
    a, b = folder / "a.png", folder / "b.png"
    assert make_requests(["one", "two"], 5, []) == [Request("one", 5), Request("two", 6)]
    assert [request.image for request in make_requests(["one", "two"], 5, [a])] == [a, a]
    assert [request.image for request in make_requests(["one", "two"], 5, [b, a])] == [b, a]
    with pytest.raises(UserError, match="2 images for 3 prompts"):
        make_requests(["one", "two", "three"], 5, [a, b])


def test_every_request_has_a_name_of_its_own():
    same = "A long description, " * 5
    requests = [Request("A red circle!", 7), Request(same + "one", 1), Request(same + "two", 1), Request("日本", 2)]
    requests += [Request("中国", 2), Request("a", 3), Request("a 2", 3), Request("A", 3), Request("a?", 3)]
    names = file_names(requests)
    assert names[:3] == ["00007-a-red-circle", f"00001-{'a-long-description-' * 4}"[:66], names[1] + "-2"]
    assert names[3:] == ["00002-", "00002--2", "00003-a", "00003-a-2", "00003-a-3", "00003-a-4"]


def test_a_picture_is_scaled_to_cover_the_clip_and_cut_at_its_centre(folder):
    wide = greys(1, 32, 96)[0]
    wide[:, 32:64] = (200, 100, 50)
    (folder / "wide.png").write_bytes(image_bytes(wide, ".png"))
    (cut,) = picture(folder / "wide.png", ClipShape(9, 16, 16))
    assert cut.shape == (16, 16, 3) and (abs(cut.astype(int) - (200, 100, 50)) < 8)[:, 1:-1].all()
    assert picture(write_video(folder / "a.mp4", greys(5)), ClipShape(9, 16, 16)).shape == (1, 16, 16, 3)


def test_a_file_that_is_no_picture_is_refused(folder):
    (folder / "text.png").write_text("no picture")
    for name, words in (("text.png", "does not decode"), ("none.png", "does not open: No such file"), ("sub", "open")):
        with pytest.raises(UserError, match=f"image .*{name}.*{words}"):
            picture(folder / name, ClipShape(9, 16, 16))
