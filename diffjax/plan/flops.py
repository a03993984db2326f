"""FLOPs of matrix products and convolutions, counted in the program before compilation."""

import math
from typing import Any

import jax

MULTIPLY_ADD = 2


def matmul_flops(jaxpr: Any) -> int:
    """FLOPs of a jaxpr's matrix products and convolutions; those of a scan for every turn.

    Of the branches of a condition the most expensive counts, of a `while` one turn.
    """
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        inner = math.prod(shape[axis] for axis in contracted)
        return MULTIPLY_ADD * equation.outvars[0].aval.size * inner
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        return MULTIPLY_ADD * equation.outvars[0].aval.size * kernel.size // features
    inner = [matmul_flops(jaxpr) for jaxpr in _jaxprs(equation.params)]
    if equation.primitive.name == "cond":
        return max(inner)
    return sum(inner) * equation.params.get("length", 1)


def _jaxprs(params: dict) -> list:
    """The programs inside an equation."""
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda p: hasattr(p, "eqns"))
    found = [getattr(leaf, "jaxpr", leaf) for leaf in leaves]
    return [leaf for leaf in found if hasattr(leaf, "eqns")]
