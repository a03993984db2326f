"""Digits in 1, 2, 4 and 8 steps, all methods: `python benchmarks/few_step_digits.py runs`.

Draws 500 digits of each trained workdir in the folder (see ROWS), --draws times, and prints a
table: the Frechet distance in pixel space to the real digits over that between random halves of
them (benchmarks/digits.py), its lowest and highest of the draws, and how often a classifier agrees
with the label. Cost is of all training, in steps of the teacher's own training, counted in
multiplications. Draws are kept in the workdirs and made anew only for newer checkpoints. The
folder digits_tuned is a copy of digits on which `python -m diffjax.tune` was run.
"""

import numpy as np
from digits import judge
from few_step_table import STEPS, Comparison, Row, main

NUM = 500

ROWS = (
    Row("teacher, DDIM", "digits", (*STEPS, 50)),
    Row("teacher, tuned", "digits_tuned", (4, 6, 8), tuned=True),
    Row("consistency distillation", "digits_consistency"),
    Row("latent consistency", "digits_lcm"),
    Row("CTM", "digits_ctm"),
    Row("progressive distillation", "digits_progressive", STEPS, True),
    Row("reflow", "digits_reflow"),
    Row("DMD2", "digits_dmd2", (1,)),
    Row("moment matching", "digits_moment_matching", (4,)),
    Row("sCM", "digits_scm"),
    Row("MeanFlow", "digits_mean_flow"),
    Row("improved MeanFlow", "digits_imf"),
    Row("SoFlow", "digits_soflow"),
    Row("shortcut", "digits_shortcut"),
    Row("ECT", "digits_ect"),
    Row("iCT", "digits_ict"),
    Row("IMM", "digits_imm"),
    Row("drifting", "digits_drifting", (1,)),
    Row("guidance distillation, DDIM", "digits_guidance", (*STEPS, 50)),
)


def ratios():
    """Images of a draw -> ratio of distances, and share of agreement."""
    measure, reference = judge()
    labels = np.arange(NUM) % 10

    def ratio(images):
        agree, distance = measure(images, labels)
        return distance / reference, agree

    return ratio


if __name__ == "__main__":
    main(__doc__, Comparison(ROWS, NUM, ratios, range(10), pixel=6))
