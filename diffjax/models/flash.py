"""Attention that never writes its weights to memory: cuDNN's kernel, with every derivative.

FlashAttention (Dao et al. 2022) keeps softmax(q k') on the chip. The kernel has a backward pass
of its own and no forward derivative, which MeanFlow, sCM and likelihoods need. So attention is a
primitive here: its derivative in a direction is that of the plain formula, and the transpose of
this derivative is the kernel's backward pass.
"""

import logging
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from diffjax.models.softmax import softmax_attention
from diffjax.types import Array

_say = cache(logging.getLogger(__name__).warning)
"""Logs a sentence once."""


def suits(q: Array, k: Array, v: Array) -> bool:
    """Whether cuDNN's kernel takes them: 16 bits, heads of at most 128, a multiple of 8.

    Args:
      q, k, v: as of `flash_attention`.
    """
    half = all(z.dtype in (jnp.bfloat16, jnp.float16) for z in (q, k, v))
    return half and q.shape[-1] <= 128 and q.shape[-1] % 8 == 0


def flash_attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q k' / sqrt(D)) v (Vaswani et al. 2017, Eq. 1) by cuDNN on an NVIDIA GPU.

    Elsewhere, or where cuDNN has no such kernel, which is logged, it is the plain formula.
    Derivatives of any order, forward and backward, `vmap` and shardings work; the gradient is the
    kernel's own.

    Args:
      q: queries (B, T, heads, D), all three as `suits` says.
      k: keys (B, S, heads, D).
      v: values (B, S, heads, D).

    Returns:
      (B, T, heads, D).
    """
    return _attended.bind(q, k, v)[0]


def _kernel(q, k, v):
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


def _attend(attend, q, k, v):
    return [attend(q, k, v)]


def _push(attend, q, k, v, *tangents):
    """The derivative in a direction."""
    return [jax.jvp(attend, (q, k, v), tangents)[1]]


def _pull(attend, q, k, v, cotangent):
    """Its transpose, the gradient."""
    return list(jax.vjp(attend, q, k, v)[1](cotangent))


def _primitive(name, formula, on_cuda):
    """A primitive of a list of results that is `formula`, on an NVIDIA GPU `on_cuda`."""

    def shapes(*given):
        return [jax.core.ShapedArray(z.shape, z.dtype) for z in jax.eval_shape(formula, *given)]

    def batched(given, axes):  # the axis of `vmap` is one more axis of the batch
        size = next(z.shape[i] for z, i in zip(given, axes, strict=True) if i is not None)
        given = [batching.bdim_at_front(z, i, size) for z, i in zip(given, axes, strict=True)]
        out = made.bind(*(z.reshape(-1, *z.shape[2:]) for z in given))
        return [z.reshape(size, -1, *z.shape[1:]) for z in out], [0] * len(out)

    def usable(*given):
        if jax.default_backend() != "gpu":  # exported by a process that cannot ask cuDNN
            return formula(*given)
        try:
            return on_cuda(*given)
        except (NotImplementedError, RuntimeError) as error:  # an old GPU or cuDNN, or none
            _say(f"Attention is computed without cuDNN's flash kernel: {error}")
            return formula(*given)

    made = Primitive(name)
    made.multiple_results = True
    made.def_impl(jax.jit(made.bind))
    made.def_abstract_eval(shapes)
    batching.primitive_batchers[made] = batched
    mlir.register_lowering(made, mlir.lower_fun(formula, multiple_results=True))
    mlir.register_lowering(made, mlir.lower_fun(usable, multiple_results=True), platform="cuda")
    return made


def _told_push(*given):
    _say("The derivative of attention along a direction has no flash kernel: the formula is used.")
    return _push_formula(*given)


_formula, _push_formula, _pull_formula = (
    partial(f, softmax_attention) for f in (_attend, _push, _pull)
)
_attended = _primitive("attention", _formula, partial(_attend, _kernel))
_pushed = _primitive("attention_push", _push_formula, _told_push)
_pulled = _primitive("attention_pull", _pull_formula, partial(_pull, _kernel))


def _derivative(primals, tangents):
    tangents = map(ad.instantiate_zeros, tangents)
    return _attended.bind(*primals), _pushed.bind(*primals, *tangents)


def _of_formula(formula):
    """The derivative of a push or a pull, by the plain formula."""
    return lambda primals, tangents: jax.jvp(
        formula, tuple(primals), tuple(map(ad.instantiate_zeros, tangents))
    )


def _transposed_push(cotangents, q, k, v, *tangents):
    found = _pulled.bind(q, k, v, ad.instantiate_zeros(cotangents[0]))
    wanted = map(ad.is_undefined_primal, tangents)
    return [None] * 3 + [c if w else None for c, w in zip(found, wanted, strict=True)]


def _transposed_pull(cotangents, q, k, v, _):
    return [None] * 3 + _pushed.bind(q, k, v, *map(ad.instantiate_zeros, cotangents))


ad.primitive_jvps |= {
    _attended: _derivative,
    _pushed: _of_formula(_push_formula),
    _pulled: _of_formula(_pull_formula),
}
ad.primitive_transposes |= {_pushed: _transposed_push, _pulled: _transposed_pull}
