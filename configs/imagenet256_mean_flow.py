"""MeanFlow, DiT-XL/2, ImageNet at 256x256 in one step, in the latents of Stable Diffusion.

    python train.py configs/imagenet256_mean_flow.py --latents-path latents.npz --workdir runs/mf
    python sample.py runs/mf --steps 1 --guidance-scale 2 --autoencoder FOLDER

Data as for configs/imagenet256_dit.py. The paper's FID of 50,000 samples is 3.43 in one step and
2.93 in two, after 240 epochs at one fixed guidance (Geng et al. 2025, MeanFlow-XL/2). Here the
scale of guidance is an input, as in improved MeanFlow. Not trained here.
"""

from diffjax import conditioning, data, distill, media, recipe, schedules, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import at_steps, predict_velocity
from diffjax.pretrained.model import decoder

OPTIMIZER = {"steps": 1_200_000, "batch_size": 256, "lr": 1e-4, "warmup": 0, "clip_norm": None}
CLASSES, NUMBERS, SCALES = 1000, (distill.UNTIL, distill.SCALE), (1.0, 4.0)
PARTS = {"dit": recipe.dit, "dropped": recipe.label_dropout, "decoder": decoder}


@recipe.flags(train=recipe.defaults(recipe.warmup_adam, **OPTIMIZER), **PARTS)
def get_config(
    train, dit, dropped, decoder, latents_path: str = "latents.npz", size: int = 32
) -> Experiment:
    """The experiment.

    Args:
      latents_path: npz of `x` (N, size, size, 4) and `label` (N,).
      size: side of the latents.
    """
    line, label = schedules.rectified_flow(), conditioning.label(CLASSES)
    module, predicts = dit(num_classes=CLASSES, learn_sigma=False), at_steps(predict_velocity, 50)
    given = (size, size, 4), (label,), media.arrays
    base = recipe.gaussian_model(module, line, predicts, *given)
    student = distill.student(base, module, predicts, NUMBERS, distill.JUMPS)
    velocity = distill.velocity_for(student.model, base, None)
    density = weighting.logit_normal(line, -0.4, 1.0)
    loss = distill.mean_flow(student.network, line, predicts, density, velocity)
    loss = dropped(distill.at_drawn_scales(distill.with_itself(loss), SCALES), label)
    student = student._replace(model=decoder(student.model))
    source = lambda: data.latents(latents_path, CLASSES)  # noqa: E731
    return distill.experiment(student, loss, source, train._asdict())
