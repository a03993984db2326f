"""Fine-tuning through the scripts: a base, a LoRA of it, its file, and what is refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nets import reference, write_folder
from scripts import ROOT, TINY, run, saved, trained  # noqa: F401

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.run.weights import starting_weights, with_weights
from diffjax.training import init_state

LORA = ("--batch-size", "8", "--sample-every", "0", "--log-every", "1", "--rank", "2")


@pytest.fixture
def call(monkeypatch, capsys):
    """A script in this process: its exit code and all that it said."""

    def called(script, *arguments):
        monkeypatch.chdir(ROOT)
        code, out, err = run(monkeypatch, capsys, script, *arguments)
        return code, out + err

    return called


@pytest.fixture
def pictures(tmp_path):
    """Other data of the base's kind: rings with labels."""
    g, grid = np.random.default_rng(0), np.mgrid[:8, :8] - 3.5
    radius = np.hypot(*grid)[None, :, :, None] - g.uniform(1, 3, (24, 1, 1, 1))
    x = (255 * np.exp(-(radius**2))).astype(np.uint8)
    np.savez(tmp_path / "rings.npz", x=x, label=np.arange(24) % 10)
    return tmp_path / "rings.npz"


@pytest.fixture
def tuned(call, pictures, tmp_path, trained):  # noqa: F811
    """A LoRA of the tiny run after three steps: workdir and base."""

    def make(name, *flags, steps=3):
        asked = ("--base", trained[0], "--data", pictures, "--workdir", tmp_path / name)
        code, said = call("train", "configs/lora.py", *asked, *LORA, *flags, "--steps", steps)
        assert code == 0, said
        return tmp_path / name

    return make


def drawn(call, workdir, path, *flags):
    code, said = call("sample", workdir, "--num", 4, "--steps", 3, "--out", path, *flags)
    assert code == 0, said
    return np.load(path)["samples"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ["rslora", "dora", "lora_ga"])
@pytest.mark.parametrize("form", ["peft", "kohya"])
def test_a_file_on_the_base_draws_as_the_run(call, tuned, trained, tmp_path, method, form):  # noqa: F811
    workdir = tuned(method, "--method", method, "--alpha", "4", "--lr", "0.05")
    from diffjax.export import lora as export

    file = tmp_path / "style.safetensors"
    export.main([str(workdir), "--out", str(file), "--form", form])
    one = drawn(call, workdir, tmp_path / "one.npz")
    two = drawn(call, trained[0], tmp_path / "two.npz", "--lora", file)
    base = drawn(call, trained[0], tmp_path / "base.npz", "--lora", f"{file}:0")
    assert np.abs(one.astype(int) - two).max() <= 1
    if method != "dora":
        np.testing.assert_array_equal(base, drawn(call, trained[0], tmp_path / "b.npz"))
    assert np.abs(one.astype(int) - base).max() > 5


@pytest.mark.exhaustive
def test_only_the_lora_is_saved_and_the_start_stands_still(tuned):
    workdir = tuned("ga", "--method", "lora_ga")
    state = saved(workdir, 3)
    assert {*state["params"]} == {"lora", "start"}
    for tree in (state["params"], state["averages"]["ema"]):
        one, other = tree["lora"]["conv_in"]["kernel"], tree["start"]["conv_in"]["kernel"]
        assert not np.array_equal(one["a"], other["a"])
    first = saved(tuned("again", "--method", "lora_ga", steps=1), 1)["params"]["start"]
    np.testing.assert_array_equal(first["conv_in"]["kernel"]["a"], other["a"])
    record = json.loads((workdir / "config.json").read_text())
    assert {*record["fingerprints"]} == {"base", "first_batches"}


@pytest.mark.exhaustive
def test_another_base_is_refused(call, tuned, trained, pictures, tmp_path):  # noqa: F811
    """By training, by sampling and by the file: a sentence and exit 2."""
    base = shutil.copytree(trained[0], tmp_path / "base")
    asked = ("--base", base, "--data", pictures, "--workdir", tmp_path / "w", *LORA)
    assert call("train", "configs/lora.py", *asked, "--steps", 2)[0] == 0
    from diffjax.export import lora as export

    export.main([str(tmp_path / "w")])
    flags = ("--workdir", base, *TINY, "--steps", 7)
    assert call("train", *flags)[0] == 0  # the base goes on
    for arguments in (
        ("train", "configs/lora.py", *asked, "--steps", 3),
        ("sample", tmp_path / "w", "--num", 2, "--steps", 2, "--out", tmp_path / "a.png"),
        ("sample", base, "--lora", tmp_path / "w" / "lora.safetensors", "--num", 2),
    ):
        code, said = call(*arguments)
        assert code == 2, said
        assert "fingerprint" in said


def test_what_is_no_lora_is_refused(call, trained, tmp_path):  # noqa: F811
    code, said = call("sample", trained[0], "--lora", tmp_path / "none.safetensors")
    assert code == 2
    assert "is no LoRA file" in said
    from diffjax.export import lora as export

    with pytest.raises(InputError, match="is no LoRA's run"):
        export.main([str(trained[0])])


def test_training_begins_from_a_folder_of_diffusers(tmp_path):
    """--init-from: parameters and averages are the published ones, of this network alone."""
    config, tensors, _ = reference("diffusers_unet2d")
    folder = write_folder(tmp_path / "unet", config, tensors)
    found, begun = pretrained.load(folder), starting_weights(folder)
    zeros = jax.tree.map(jnp.zeros_like, found.params)
    state = with_weights(init_state(zeros, optax.sgd(1.0)), begun, str(folder))
    for tree in (state.params, state.averages["ema"]):
        jax.tree.map(np.testing.assert_array_equal, tree, found.params)
    other = init_state({"w": jnp.zeros(3)}, optax.sgd(1.0))
    with pytest.raises(InputError, match="are weights of another network"):
        with_weights(other, begun, str(folder))
