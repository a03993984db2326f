"""Imports point up the list of the house, and models and mathematics do not meet."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "diffjax"

# A module may import from its own package and from those above it.
ORDER = [
    "cpu",
    "errors",
    "atomic",
    "types",
    "schedules",
    "normals",
    "diffusion",
    "parameterization",
    "weighting",
    "latents",
    "losses",
    "grids",
    "samplers",
    "guidance",
    "cascade",
    "likelihood",
    "training",
    "codec",
    "media",
    "conditioning",
    "experiment",
    "sharding",
    "models",
    "lora",
    "pretrained",
    "recipe",
    "distill",
    "editing",
    "sds",
    "discrete",
    "data",
    "latents.cached",
    "parallel",
    "checksums",
    "event_loops",
    "checkpoint",
    "run",
    "latents.cache",
    "recipe.fine_tuning",
    "recipe.dreambooth",
    "recipe.textual_inversion",
    "inference",
    "export",
    "serve",
    "evaluation",
    "evaluate",
    "edit",
    "tune",
    "plan",
]
STRANGERS = [
    ("models", {"schedules", "diffusion"}),
    ("schedules", {"models"}),
    ("samplers", {"models", "training"}),
]
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def home(path):
    """The entry of ORDER that a file belongs to: of its own, or that of its part."""
    return entry([part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts])


def entry(parts):
    """The entry of ORDER of a dotted name below the package."""
    return own if (own := ".".join(parts[:2])) in ORDER else parts[0]


def imported(source, package="diffjax"):
    """Entries of ORDER that a source imports from, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: import by the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        found |= {entry(p[1:]) if len(p) > 1 else "" for p in parts if p[0] == package}
    return found


def test_reader_of_imports():
    source = "import diffjax.grids\ndef f():\n  from diffjax import losses, data\n"
    assert imported(source + "from diffjax.models.unet import UNet\nimport jax\n") == {
        "grids",
        "losses",
        "data",
        "models",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_up(path):
    assert home(path) in ORDER, "add the new part of the house to ORDER"
    names = imported(path.read_text())
    assert "" not in names, "import the parts, not the package"
    below = names - set(ORDER[: ORDER.index(home(path)) + 1])
    assert not below, f"{path.name} imports {below} from below itself"


@pytest.mark.parametrize(("part", "others"), STRANGERS)
def test_strangers(part, others):
    for path in FILES:
        if home(path) == part:
            assert not imported(path.read_text()) & others, path
