"""Textual inversion: one row of a table is the encoder's word, and the rest stays what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import close

from diffjax.conditioning import Condition
from diffjax.recipe.textual_inversion import Words, of_word, read_by, with_word

TABLE = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
ENCODER = {"word_embeddings": {"embedding": jnp.asarray(TABLE)}, "scale": jnp.float32(2)}
LIKE = {"vector": jax.ShapeDtypeStruct((4,), np.float32)}
BASE = Condition(LIKE, {"vector": np.full(4, -7, np.float32)}, lambda num: {})


def tokens(texts):
    """A text of digits: each is the row of a word."""
    ids, mask = np.zeros((len(texts), 3), np.int32), np.zeros((len(texts), 3), np.int32)
    for i, text in enumerate(texts):
        ids[i, : len(text)], mask[i, : len(text)] = [*map(int, text)], 1
    return {"ids": ids, "mask": mask}


def encode(params, ids, mask):
    """The mean of the words of a text, scaled."""
    rows = params["word_embeddings"]["embedding"][ids] * mask[..., None]
    return {"vector": params["scale"] * rows.sum(1) / mask.sum(1)[:, None]}


WORDS = Words(tokens, encode, lambda: ENCODER, row=5, first=3, width=4)


def raw(*texts):
    return {name: jnp.asarray(a) for name, a in tokens(texts).items()}


def test_texts_without_the_word_are_read_as_before_and_the_null_is_the_base_s():
    arrays, vector = read_by(WORDS, BASE), jnp.arange(4.0)
    found = arrays(ENCODER, vector, raw("12", "5", ""))["vector"]
    close(TABLE[1] + TABLE[2], found[0])
    close(2 * vector, found[1])
    np.testing.assert_array_equal(found[2], -7)


def test_the_word_that_it_begins_as_is_read_like_it():
    arrays = read_by(WORDS, BASE)
    found = arrays(ENCODER, jnp.asarray(TABLE[WORDS.first]), raw("15", "13"))["vector"]
    np.testing.assert_array_equal(*found)


def test_only_the_word_has_a_gradient_and_only_where_it_stands():
    def total(params, text):
        return read_by(WORDS, BASE)(params["encoder"], params["word"], raw(text))["vector"].sum()

    params = {"encoder": ENCODER, "word": jnp.ones(4)}
    assert jax.grad(total)(params, "15")["word"] == pytest.approx(np.ones(4))
    assert not jax.grad(total)(params, "12")["word"].any()
    rows = jax.grad(total)(params, "15")["encoder"]["word_embeddings"]["embedding"]
    assert not rows[WORDS.row].any()  # its own row is not read


def test_the_null_has_no_token():
    condition = of_word(WORDS, 3)
    assert not condition.null["mask"].any()
    np.testing.assert_array_equal(condition.flags(2, prompt="51")["ids"], [[5, 1, 0]] * 2)


def test_with_word_changes_one_row():
    new = with_word(ENCODER, 5, jnp.ones(4))["word_embeddings"]["embedding"]
    changed = np.any(np.asarray(new) != TABLE, axis=1)
    assert [*np.flatnonzero(changed)] == [5]


def test_a_draw_without_a_prompt_asks_for_nothing():
    flags = of_word(WORDS, 3).flags
    for name, found in flags(2).items():
        np.testing.assert_array_equal(found, tokens(["", ""])[name])
    np.testing.assert_array_equal(flags(2, prompt="15")["ids"], tokens(["15", "15"])["ids"])
