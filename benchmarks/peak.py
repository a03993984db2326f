"""What a core can do: the products and convolutions of a network, alone, in both libraries.

The limit of a row of `benchmarks/networks.py` is the time that its products and convolutions take
one by one, each in the faster library, and nothing else.
"""

import math
import statistics
from collections import Counter
from typing import NamedTuple


class Product(NamedTuple):
    """A batch of matrix products (batch, m, k, n), or a convolution.

    Attributes:
      left: (batch, m, k), or NHWC.
      right: (batch, k, n), or HWIO.
      strides: of a convolution; () of a product of matrices.
      padding: of a convolution.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    strides: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()

    @property
    def flops(self):
        """2 per multiply-add."""
        if not self.strides:
            return 2 * math.prod(self.left) * self.right[-1]
        sides = zip(self.left[1:3], self.padding, self.right[:2], self.strides, strict=True)
        pixels = math.prod((n + sum(pad) - k) // stride + 1 for n, pad, k, stride in sides)
        return 2 * self.left[0] * pixels * math.prod(self.right)


def products(call, *arguments):
    """How often each product occurs in a function of arrays, as a `Counter` of `Product`."""
    import jax

    found = Counter()

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                found[of_matrices(equation)] += 1
            elif equation.primitive.name == "conv_general_dilated":
                found[of_convolution(equation)] += 1
            for inner in jax.core.jaxprs_in_params(equation.params):
                walk(inner)

    walk(jax.make_jaxpr(call)(*arguments).jaxpr)
    return found


def of_matrices(equation):
    """The `Product` of a dot_general."""
    left, right = (v.aval.shape for v in equation.invars)
    (contract, _), (batch, _) = equation.params["dimension_numbers"]
    k, b = (math.prod(left[i] for i in axes) for axes in (contract, batch))
    return Product((b, math.prod(left) // (b * k), k), (b, k, math.prod(right) // (b * k)))


def of_convolution(equation):
    """The `Product` of a conv_general_dilated of NHWC and HWIO."""
    left, right = (v.aval.shape for v in equation.invars)
    p = equation.params
    return Product(left, right, tuple(p["window_strides"]), tuple(p["padding"]))


def in_jax(product):
    """The product as a compiled function without arguments."""
    import jax
    import jax.numpy as jnp

    left, right = jnp.ones(product.left), jnp.ones(product.right)
    if product.strides:
        layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        call = jax.jit(
            lambda a, b: jax.lax.conv_general_dilated(
                a, b, product.strides, product.padding, **layout
            )
        )
    else:
        call = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(call(left, right))


def in_torch(product):
    """The product in PyTorch, as a function without arguments."""
    import torch

    left, right = torch.ones(product.left), torch.ones(product.right)
    if not product.strides:
        return lambda: left @ right
    x = left.permute(0, 3, 1, 2)
    kernel = right.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    (top, bottom), (before, after) = product.padding
    if (top, before) == (bottom, after):
        return lambda: torch.nn.functional.conv2d(x, kernel, None, product.strides, (top, before))
    pad = (before, after, top, bottom)
    padded = torch.nn.functional.pad(x, pad).contiguous(memory_format=torch.channels_last)
    return lambda: torch.nn.functional.conv2d(padded, kernel, None, product.strides)


def limit(counted, clock, rounds=5):
    """(seconds of all products in the faster library of each, their GFLOP/s there)."""
    import torch

    seconds = 0.0
    for product, count in counted.items():
        with torch.no_grad():
            calls = [in_jax(product), in_torch(product)]
            taken = [[timed(call, clock) for call in calls] for _ in range(rounds + 1)][1:]
        seconds += count * min(statistics.median(times) for times in zip(*taken, strict=True))
    flops = sum(product.flops * count for product, count in counted.items())
    return seconds, flops / seconds / 1e9


def timed(call, clock, least=0.005):
    """Seconds of one call, of as many as take `least` seconds together."""
    count, began = 0, clock()
    while count == 0 or clock() - began < least:
        call()
        count += 1
    return (clock() - began) / count
