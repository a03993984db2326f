"""Published configurations with random faults load, or say what is wrong in one sentence."""

import json
import random
import time

import pytest
from nets import GOLDEN

from diffjax.errors import InputError
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.sampling import sampling_of
from diffjax.pretrained.scheduler import KEY, noise_of
from diffjax.pretrained.scheduler_settings import SCHEDULERS

ARCHITECTURES = {"adm_unet": "adm", "adm_unet_plain": "adm", "edm_ddpmpp": "edm"}
ARCHITECTURES |= {"edm_ncsnpp": "edm_ve", "edm_adm": "edm", "dit": "dit"}
ARCHITECTURES |= {name: name for name in ("edm2", "uvit", "uvit_latent", "uvit_text")}
ARCHITECTURES |= {"adm_classifier": "adm_classifier"}
VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    0.5,
    -0.5,
    1e9,
    10**6,
    "1000",
    "32,16,8",
    "",
    "silu",
]
VALUES += [[], [1], [0, 0], [[1, 2]], ["a"], {}, float("nan"), float("inf")]
CONFIGS = {
    path.stem: path for path in sorted(GOLDEN.glob("*.json")) if path.stem != "fid_inception"
}


def start_of(name):
    """A golden configuration that says what it is of."""
    described = json.loads(CONFIGS[name].read_text())
    config = described["config"]
    if name in ARCHITECTURES:
        return {"architecture": ARCHITECTURES[name], **config}
    if "_class_name" not in config:  # transformers'
        config["architectures"] = [described["reference"].split()[1]]
    return config


def mutated(rng, config):
    """The configuration with one to three faults."""
    config = dict(config)
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(sorted(config))
        kind = rng.randrange(5)
        if kind == 0:
            config.pop(name)
        elif kind == 1:
            config[name + "x"] = config.get(name)
        elif kind == 2 and isinstance(config[name], list):
            config[name] = config[name][:-1]
        else:
            config[name] = rng.choice(VALUES)
        if not config:
            break
    return config


def or_a_sentence(seed, config, build):
    """1 where it loads, 0 where an InputError says why not; any other exception fails."""
    said = None
    try:
        build(config)
    except InputError as error:
        said = str(error)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {config} raised {error!r}") from error
    assert said is None or len(said.splitlines()) == 1, f"seed {seed}: {said}"
    return said is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CONFIGS)
def test_networks(name):
    start = start_of(name)
    seed, loaded, until = 0, 0, time.monotonic() + 6
    while time.monotonic() < until and seed < 60:
        config = mutated(random.Random(f"{name} {seed}"), start)
        loaded += or_a_sentence(f"{name} {seed}", config, architecture_of)
        seed += 1
    print(f"{name}: seeds 0 to {seed - 1}, {loaded} loaded")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["diffusers_unet2d", "diffusers_autoencoder_kl", "dit", "edm2"])
def test_shapes_of_networks(name):
    """Through the module itself, as `load` does before it reads a tensor."""
    from diffjax.pretrained.load import describing

    start = start_of(name)

    def build(config):
        architecture = architecture_of(config)
        with describing(name):
            shapes(architecture)

    for seed in range(6):
        or_a_sentence(f"{name} {seed}", mutated(random.Random(f"{name} {seed}"), start), build)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_schedulers(kind):
    """The schedule, the sampler and a grid of up to 12 steps."""

    def build(config):
        schedule, parameterization = noise_of(config)
        found = sampling_of(config)
        found.sampler(schedule, **found.options)
        ts = found.grid(schedule, n)
        parameterization(schedule, ts[:-1])
        assert ts[0] > ts[-1], ts

    for seed in range(60):
        rng = random.Random(f"{kind} {seed}")
        n = rng.randint(1, 12)
        given = mutated(rng, {"_class_name": kind, **SCHEDULERS[kind]})
        or_a_sentence(f"{kind} {seed}", {KEY: given}, build)
