"""How the project is called by checks against golden numbers: the parts of `tests/adapters/`.

A part is a file with `FUNCTIONS` (name -> callable), `CALLS` (class name of a published config ->
callable), or functions such as `lora_merge` and `run_pipeline`; all are joined here.
"""

import importlib.util
from pathlib import Path

FUNCTIONS: dict = {}
CALLS: dict = {}

for _path in sorted((Path(__file__).parent / "adapters").glob("*.py")):
    _spec = importlib.util.spec_from_file_location(f"adapters_{_path.stem}", _path)
    _module = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)
    FUNCTIONS.update(getattr(_module, "FUNCTIONS", {}))
    CALLS.update(getattr(_module, "CALLS", {}))
    for _name, _value in vars(_module).items():
        if callable(_value) and getattr(_value, "__module__", None) == _module.__name__:
            globals().setdefault(_name, _value)
