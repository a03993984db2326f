"""python -m diffjax.edit: what it refuses, what it keeps of a picture, and its files."""

import re
import sys

import numpy as np
import pytest
from nets import reference, write_folder
from PIL import Image

from diffjax import conditioning, edit
from diffjax.errors import InputError
from diffjax.experiment import Model
from diffjax.run import start

SLOW = pytest.mark.exhaustive
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Pictures, masks and measurements, right and wrong, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURES[0, ..., 0]).save("seven.png")
    Image.fromarray(PICTURES[0, ..., 0]).resize((9, 9)).save("large.png")
    Image.fromarray(PICTURES[0].repeat(3, axis=2)).save("colour.png")
    mask = np.zeros((8, 8), np.uint8)
    Image.fromarray(mask).save("black.png")
    mask[4:] = 255
    Image.fromarray(mask).save("lower.png")
    Image.fromarray(mask[:4]).save("wide.png")
    Image.fromarray(mask).convert("RGB").save("colour_mask.png")
    np.savez("two.npz", samples=PICTURES)
    np.savez("other.npz", samples=PICTURES[:, :4])
    np.savez("numbers.npz", measurement=np.zeros((1, 15), np.float32))
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of the command, called in this process."""
    monkeypatch.setattr(sys, "argv", ["edit.py", *map(str, arguments)])
    try:
        start.run(edit.main)
        code = 0
    except SystemExit as exit:
        code = exit.code
    return code, *capsys.readouterr()


IMAGE = ("--init-image", "seven.png")
SMALL = ("--operator", "super_resolution", "--measurement")
BAD = [
    ((), "this method needs --init-image"),
    (("--init-image", "none.png"), "none.png is not a picture that can be read"),
    (("--init-image", "text.png"), "text.png is not a picture that can be read"),
    (("--init-image", "large.png"), r"must be 8x8 pixels, grey \(L\); got 9x9, L"),
    (("--init-image", "colour.png"), "got 8x8, RGB.*or add --fit"),
    (("--init-image", "other.npz"), r"must have the shape \(N, 8, 8, 1\) here; got \(2, 4, 8, 1\)"),
    (("--init-image", "numbers.npz"), "holds no array `samples`"),
    ((*IMAGE, "--mask", "wide.png"), "--mask wide.png must be 8x8 pixels.*got 4x8, L"),
    ((*IMAGE, "--mask", "colour_mask.png"), r"grey \(L\); got 8x8, RGB"),
    ((*IMAGE, "--mask", "black.png"), "nothing is drawn anew"),
    (("--mask", "lower.png"), "this method needs --init-image"),
    ((*IMAGE, "--method", "repaint"), "this method needs --mask"),
    ((*IMAGE, "--strength", "0"), "strength must be above 0 and at most 1"),
    ((*IMAGE, "--strength", "1.2"), "strength must be above 0 and at most 1"),
    ((*IMAGE, "--strength", "0.01"), "leaves none of 50 steps"),
    ((*IMAGE, "--mask", "lower.png", "--strength", "0.5"), "leave out --strength"),
    ((*SMALL, "seven.png"), "--measurement seven.png must be 2x2 pixels.*got 8x8"),
    ((*SMALL, "numbers.npz"), r"must have the shape \(N, 2, 2, 1\)"),
    (("--operator", "super_resolution", "--factor", "3", *IMAGE), "multiples of 3; got 8 x 8"),
    (("--operator", "compressed_sensing", "--measurement", "seven.png"), "an .npz of `measurem"),
    (("--operator", "compressed_sensing", "--measurement", "numbers.npz"), r"\(N, 16\) here; got"),
    (("--operator", "jpeg", *IMAGE, "--method", "ddnm"), "needs a linear --operator"),
    (("--operator", "sharpen", *IMAGE), "'sharpen' is not a operator; there are blur"),
    (("--operator", "blur"), "needs --operator with --measurement or --init-image"),
    ((*IMAGE, "--method", "dpz"), "'dpz' is not a method.*Did you mean dps?"),
    ((*IMAGE, "--method", "ddim_inversion"), "such as --from-label"),
    ((*IMAGE, "--from-label", "10", "--label", "3"), "must be from 0 to 9; got 10"),
    ((*IMAGE, "--guidance-scale", "2"), "guidance needs a model with a null and a condition"),
    ((*IMAGE, "--num", "0"), "--num must be at least 1"),
    ((*IMAGE, "--out", "a.gif"), "must end in one of .png, .npz"),
    ((*IMAGE, "--pretrained", "folder"), "give a workdir or --pretrained"),
]


OFTEN = (3, 7, 13, 16, 18, 21, 27)  # a size, a mask's size, a strength, operators, guidance


@pytest.mark.parametrize(
    ("arguments", "says"),
    [pytest.param(*row, marks=() if i in OFTEN else SLOW) for i, row in enumerate(BAD)],
    ids=[" ".join(arguments)[-40:] or "nothing" for arguments, _ in BAD],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments, says, trained, files, monkeypatch, capsys):
    before = sorted(files.iterdir())
    code, out, err = run(monkeypatch, capsys, trained[0], *arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(says, err), err
    assert "once compiled" not in out
    assert sorted(files.iterdir()) == before


def test_a_workdir_is_asked_for(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys)
    assert code == 2
    assert "give the workdir of a trained model" in err


def test_a_model_with_a_mask_of_its_own_is_refused():
    model = Model(None, None, None, None, conditions=(conditioning.mask((8, 8)),))
    with pytest.raises(InputError, match=r"given --mask as a condition of its own"):
        edit.read_flags([], model, "edit")


@pytest.mark.parametrize("name", ["methods", "operators"])
def test_lists_name_functions_with_their_flags(name, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "--list", name)
    assert code == 0
    wanted = {"methods": ("ddnm", "--noise-std", "sdedit"), "operators": ("jpeg", "--quality")}
    assert all(word in out for word in wanted[name])


def test_help_teaches_by_examples(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "--help")
    assert code == 0
    assert "--from-label 3 --label 8" in out
    assert "--operator super_resolution" in out


def test_inpainting_keeps_what_the_mask_keeps(trained, files, monkeypatch, capsys):
    """Of two pictures, whatever the batch, and both files show it."""
    flags = ("--init-image", "two.npz", "--mask", "lower.png", "--num", 3, "--steps", 4)
    flags += ("--method", "replacement", "--out", "a.png", "--out")
    made = []
    for batch in (3, 2):
        code, out, err = run(
            monkeypatch, capsys, trained[0], *flags, f"{batch}.npz", "--batch-size", batch
        )
        assert code == 0, err
        assert "4 steps" in out
        made.append(np.load(f"{batch}.npz")["samples"])
    np.testing.assert_array_equal(*made)
    known = PICTURES[np.arange(3) % 2]
    np.testing.assert_array_equal(made[0][:, :4], known[:, :4])
    assert np.abs(made[0][:, 4:].astype(int) - known[:, 4:]).mean() > 20
    assert (made[0][0] != made[0][2]).any()  # two results of one picture
    # a row of each picture: itself, the kept part, and its two results (the last is missing)
    assert np.asarray(Image.open("a.png")).shape == (6 * (2 * 9 + 1), 6 * (4 * 9 + 1))


@SLOW
def test_an_edit_to_what_it_is_gives_the_picture_back(trained, files, monkeypatch, capsys):
    """Edit-friendly noise maps, from a label to the same one."""
    flags = ("--init-image", "seven.png", "--from-label", 7, "--label", 7, "--steps", 6)
    code, _, err = run(monkeypatch, capsys, trained[0], *flags, "--out", "a.npz")
    assert code == 0, err
    np.testing.assert_allclose(np.load("a.npz")["samples"][0].astype(int), PICTURES[0], atol=1)


@SLOW
@pytest.mark.parametrize(
    "flags",
    [
        (*IMAGE, "--num", 2),
        (*IMAGE, "--mask", "lower.png", "--jump-n-sample", 2),
        (*IMAGE, "--to-image", "seven.png", "--num", 2),
        (*IMAGE, "--from-label", 7, "--label", 8, "--method", "flow_edit"),
        (*IMAGE, "--from-label", 7, "--label", 8, "--method", "ddim_inversion"),
        (*IMAGE, "--mask", "lower.png", "--method", "ddrm"),
        (*IMAGE, "--operator", "jpeg", "--method", "dps"),
        (*IMAGE, "--operator", "blur", "--method", "pigdm", "--noise-std", 0.1),
        (*IMAGE, "--operator", "phase_retrieval", "--method", "daps"),
        (*IMAGE, "--operator", "compressed_sensing", "--method", "twisted_smc", "--num", 3),
        ("--init-image", "colour.png", "--fit"),
    ],
    ids=lambda flags: " ".join(map(str, flags))[-50:],
)
def test_every_kind_of_method(flags, trained, files, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, trained[0], *flags, "--steps", 4)
    assert code == 0, err
    assert "edited.png" in out


@SLOW
def test_published_weights_edit_and_have_no_guidance(files, monkeypatch, capsys):
    config, tensors, _ = reference("diffusers_unet2d")
    folder = write_folder(files / "net", config, tensors)
    side = config["sample_size"]
    shape = (2, side, side, config["in_channels"])
    np.savez("own.npz", samples=RNG.integers(0, 256, shape, dtype=np.uint8))
    flags = ("--pretrained", folder, "--init-image", "own.npz", "--steps", 2, "--strength", 0.5)
    code, out, err = run(monkeypatch, capsys, *flags, "--out", "a.npz")
    assert code == 0, err
    assert "1 steps" in out
    assert np.load("a.npz")["samples"].shape == shape
    code, _, err = run(monkeypatch, capsys, *flags, "--guidance-scale", 2)
    assert code == 2
    assert "guidance needs a model with a null" in err
