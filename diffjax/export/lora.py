"""Write the LoRA of a run as a safetensors file: `python -m diffjax.export.lora WORKDIR`.

The file is merged into its base by `python sample.py BASE --lora FILE:0.7`, and has the form that
diffusers and PEFT read, or with --form kohya that of kohya's scripts.
"""

import sys
from pathlib import Path
from typing import Literal

from diffjax.errors import InputError


def flags(
    out: Path | None = None,
    form: Literal["peft", "kohya"] = "peft",
    step: int | None = None,
    any_base: bool = False,
):
    """Flags.

    Args:
      out: the file; default WORKDIR/lora.safetensors.
      form: of its names: diffusers' with PEFT, or kohya's.
      step: of the checkpoint; default the newest that is intact.
      any_base: leave out what the base was, so that sample.py merges the file into any network
        of these shapes.
    """


def main(argv):
    """Read the flags, write the file, and say what to type next."""
    from diffjax.pretrained import lora_files
    from diffjax.run import flags as f
    from diffjax.run import loras, start

    argv = [*argv]
    workdir = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    (asked,) = f.parse("diffjax.export.lora WORKDIR", __doc__, [flags], argv)
    if workdir is None:
        raise InputError("give the workdir of a LoRA, such as one of configs/lora.py.")
    start.check_platform()
    out, form = asked["out"] or workdir / "lora.safetensors", getattr(lora_files, asked["form"])
    print(loras.write(workdir, out, form, asked["step"], asked["any_base"]))


if __name__ == "__main__":
    from diffjax.run import start

    sys.argv[0] = "diffjax.export.lora"
    start.run(main)
