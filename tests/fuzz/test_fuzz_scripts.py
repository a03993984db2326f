"""Random flags of train.py and sample.py: exit 0 or 2 with a sentence, never a traceback.

A failure prints the command line, whose seed makes it again.
"""

import json
import random
import shutil
import time
from pathlib import Path

import jax
import pytest
from scripts import run

SMALL_RUN = Path(__file__).parent.parent / "faults" / "small_run.py"
CASES = {"sample": 300, "train": 60}
SECONDS = 120  # of the processor, for each script

NUMBERS = ("0", "1", "2", "3", "-1", "1.5", "nan", "inf", "1e3", "", "x", "4294967296", "None")
FEW = ("1", "2", "3", "3", "2", "0", "-1", "x", "1.5")
ANY = {  # flag -> values; None is the flag alone
    "--mesh": ("", "data=2", "fsdp=2", "data=-1", "data=3", "data=0", "x=2", "data",
               "data=2,data=2", "fsdp=-1,data=-1", "tensor=1", "data=1e3", "=", ","),
    "--seed": (*NUMBERS, "4294967295"),
    "--timeout": NUMBERS,
    "--process-id": NUMBERS,
    "--coordinator": ("localhost:1", ""),
    "--compilation-cache": ("off", "cache", "file"),
    "--help": (None,),
    "--no-such-flag": (None, "1"),
    "stray": (None,),
}  # fmt: skip
SAMPLE = ANY | {
    "--num": (*FEW, "7"),
    "--steps": FEW,
    "--batch-size": FEW,
    "--sampler": ("ddim", "heun", "dpmpp_sde", "lms", "restart", "amed", "decoupled",
                  "adaptive_ode", "adaptive_sde", "Heun", "", "langevin", "unipc", "sample"),
    "--grid": ("karras", "trailing", "leading", "linspace", "respaced", "beta_quantiles", "gits",
               "", "align_your_steps", "vp_uniform", "karas"),
    "--guidance-scale": (*NUMBERS, "-3", "1e30"),
    "--step": (*NUMBERS, "4", "99"),
    "--out": ("a.png", "b.npz", "c.gif", "noext", "missing/a.png", ".", "folder", "a.PNG", "",
              "file/a.png"),
    "--npz": ("d.npz", "d.png", "folder"),
    "--gif": ("e.gif", "e"),
    "--list": ("samplers", "grids", "conditions", "configs", "x", ""),
    "--list-samplers": (None,),
    "--pretrained": ("missing", "folder", "file"),
    "--autoencoder": ("missing", "folder", "file"),
    "--label": ("0", "9", "10", "-1", "x", "", "1.5"),
    "--eta": (*NUMBERS, "0.5"),
    "--rho": NUMBERS,
    "--order": NUMBERS,
    "--sigma-max": NUMBERS,
    "--relative": NUMBERS,
    "--max-steps": FEW,
    "--sampler-steps": FEW,
    "--predictor": ("heun", "x"),
    "--T": FEW,
}  # fmt: skip
TRAIN = ANY | {
    "--steps": (*FEW, "4"),
    "--batch-size": ("8", "16", "0", "-1", "x", "7", "100000"),
    "--width": ("4", "8", "x"),
    "--accumulate": FEW,
    "--workdir": ("new", "old", "old", "file", "folder", "missing/deep", "", "old/config.py"),
    "--init-from": ("old", "new", "missing", "file", "folder", "old/checkpoints"),
    "--allow-changes": ("width", "code", "steps", "x", "seed", "batch_size", ""),
    "--checkpoint-every": FEW,
    "--log-every": FEW,
    "--sample-every": FEW,
    "--keep-checkpoints": FEW,
    "--workers": ("0", "-1", "x"),
    "--parallel": ("jit", "pmap", "x"),
    "--plan": ("banana", "v5e:0x0", "v5e", "x:y"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def as_users_run():
    """Without what the suite adds to JAX; a folder of compiled functions is given back."""
    cache = jax.config.jax_compilation_cache_dir
    with jax.debug_nans(False), jax.debug_key_reuse(False):
        yield
    jax.config.update("jax_compilation_cache_dir", cache)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A workdir of two steps."""
    workdir = tmp_path_factory.mktemp("runs") / "old"
    with pytest.MonkeyPatch.context() as patch:
        code = run(patch, Quiet, "train", SMALL_RUN, "--workdir", workdir, *SIZE, "--steps", 2)[0]
    assert code == 0
    return workdir


SIZE = ("--width", 8, "--batch-size", 8, "--sample-every", 0)


class Quiet:
    """In the place of `capsys`, which a module's fixture cannot have."""

    @staticmethod
    def readouterr():
        return "", ""


def command(rng, flags):
    """One to three flags, and what keeps a run that is not refused small."""
    names = rng.sample(sorted(flags), rng.choice([1, 1, 2, 3]))
    found = []
    for name in names:
        value = rng.choice(flags[name])
        joined = value is not None and rng.random() < 0.5
        found += [f"{name}={value}"] if joined else [name] if value is None else [name, value]
    return found


def folder(rng, path, old):
    """What the flags name."""
    shutil.copytree(old, path / "old")
    (path / "folder").mkdir()
    (path / "file").write_text("")
    if rng.random() < 0.2:  # a workdir that lost something, or was written to
        victim = rng.choice(["config.json", "config.py", "checkpoints", "metrics.jsonl"])
        there = path / "old" / victim
        if there.is_dir():
            shutil.rmtree(there)
        elif rng.random() < 0.5:
            there.write_bytes(there.read_bytes()[: rng.randint(0, 99)])
        else:
            there.unlink(missing_ok=True)


def start(script, flags):
    """The flags with a config or workdir before them, and small numbers where none are given."""
    given = {flag.partition("=")[0] for flag in flags}
    if script == "sample":
        usual = {"--num": "2", "--steps": "2", "--out": "a.png"}
        first = [] if "--pretrained" in given else ["old"]
    else:
        usual = {"--steps": "2", "--width": "8", "--batch-size": "8", "--sample-every": "0"}
        usual |= {"--workdir": "new", "--workers": "0"}
        first = [str(SMALL_RUN)]
    return first + flags + [f"{flag}={usual[flag]}" for flag in usual if flag not in given]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("script", "flags"), [("sample", SAMPLE), ("train", TRAIN)])
def test_any_flags(script, flags, old, tmp_path, monkeypatch, capsys):
    first, began = random.SystemRandom().getrandbits(32), time.process_time()
    codes, faults = {0: 0, 2: 0}, []
    for seed in range(first, first + CASES[script]):
        if time.process_time() - began > SECONDS:
            break
        rng, place = random.Random(seed), tmp_path / str(seed)
        place.mkdir()
        folder(rng, place, old)
        monkeypatch.chdir(place)
        argv = start(script, command(rng, flags))
        wrong, code = None, None
        try:
            code, _, err = run(monkeypatch, capsys, script, *argv)
            if code not in (0, 2) or "Traceback" in err or (code == 2 and not err.strip()):
                wrong = f"exit {code}: {err[-300:]}"
        except Exception as error:
            wrong = repr(error)[:600]
        if wrong:
            faults.append(f"seed {seed}: {script}.py {json.dumps(argv)}: {wrong}")
        else:
            codes[code] += 1
        shutil.rmtree(place, ignore_errors=True)
    with capsys.disabled():
        done, spent = seed - first, time.process_time() - began
        print(f"\n{script}.py, seeds {first} to {first + done}: {codes}, {spent:.0f} s")
    assert not faults, "\n".join(faults)
    assert min(codes.values()) > 0
