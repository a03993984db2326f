"""Equations under each of JAX's transformations: one value, right to single precision."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized
from oracles import SCHEDULES

from diffjax import diffusion, schedules, weighting
from diffjax.parameterization import predict_eps, predict_score, predict_v, predict_velocity

VP = SCHEDULES["vp_cosine"]
LIKE = (6, 4)


def _arrays():
    """x, another array of its shape, and times s < t, in double precision."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, *LIKE))
    return {"x": x, "y": y, "t": rng.uniform(0.4, 0.9, 6), "s": rng.uniform(0.05, 0.35, 6)}


def _predicts(parameterization):
    def predicted(x, y, t, s):
        c = parameterization(VP, t)
        return tuple(jnp.asarray(v) for v in c)

    return predicted


EQUATIONS = {
    **{
        f"logsnr_{name}": lambda x, y, t, s, schedule=schedule: schedules.logsnr(schedule, t)
        for name, schedule in SCHEDULES.items()
        if name in ("linear", "vp_cosine", "edm")
    },
    "q_sample": lambda x, y, t, s: diffusion.q_sample(VP, x, t, y),
    "q_step": lambda x, y, t, s: diffusion.q_step(VP, x, s, t, y),
    "transition": lambda x, y, t, s: diffusion.transition(VP, t, s),
    "predict_eps": _predicts(predict_eps),
    "predict_v": _predicts(predict_v),
    "predict_velocity": _predicts(predict_velocity),
    "predict_score": _predicts(predict_score),
    "snr_plus_one": lambda x, y, t, s: weighting.snr_plus_one(schedules.logsnr(VP, t)),
}


class EveryTransformation(chex.TestCase):
    """With jit, with pmap on eight devices, on a device, and as Python runs it."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, with_pmap=True)
    @parameterized.named_parameters(*EQUATIONS.items())
    def test_equals_double_precision(self, equation):
        given = _arrays()
        single = {name: jnp.asarray(a, jnp.float32) for name, a in given.items()}
        value = self.variant(equation)(**single)
        with jax.enable_x64(True):
            doubles = {name: jnp.asarray(np.asarray(a), float) for name, a in single.items()}
            exact = jax.tree.map(np.asarray, equation(**doubles))
        chex.assert_trees_all_close(value, exact, rtol=2e-5, atol=2e-5)
