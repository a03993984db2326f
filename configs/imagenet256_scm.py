"""sCM from data (sCT), DiT-XL/2, ImageNet at 256x256 in one or two steps, in latents.

    python train.py configs/imagenet256_scm.py --latents-path latents.npz --workdir runs/scm
    python sample.py runs/scm --steps 2 --autoencoder FOLDER

Data as for configs/imagenet256_dit.py. The paper has no figure at 256: its FID at 512x512, with
EDM2's networks, is 1.88 in two steps (Lu & Song 2025, sCD-XXL). Not trained here.
"""

from diffjax import conditioning, data, distill, media, recipe, schedules, weighting
from diffjax.experiment import Experiment
from diffjax.parameterization import at_steps, predict_v
from diffjax.pretrained.model import decoder

OPTIMIZER = {"steps": 400_000, "batch_size": 256, "lr": 1e-4, "clip_norm": None}
CLASSES = 1000


@recipe.flags(
    train=recipe.defaults(recipe.warmup_adam, **OPTIMIZER), dit=recipe.dit, decoder=decoder
)
def get_config(
    train,
    dit,
    decoder,
    latents_path: str = "latents.npz",
    size: int = 32,
    tangent_warmup: int = 10_000,
) -> Experiment:
    """The experiment.

    Args:
      latents_path: npz of `x` (N, size, size, 4) and `label` (N,).
      size: side of the latents.
      tangent_warmup: steps in which the unstable part of the tangent comes in; the paper's 10,000.
    """
    circle, label, predicts = schedules.gvp(), conditioning.label(CLASSES), at_steps(predict_v, 2)
    module, shape = dit(num_classes=CLASSES, learn_sigma=False), (size, size, 4)
    base = recipe.gaussian_model(module, circle, predicts, shape, (label,), media.arrays)
    student = distill.student(base, module, predicts, ())
    density = weighting.edm_lognormal(circle, -1.0, 1.4)
    loss = distill.scm(student.network, circle, predicts, density, warmup=tangent_warmup)
    student = student._replace(model=decoder(student.model))
    source = lambda: data.latents(latents_path, CLASSES)  # noqa: E731
    return distill.experiment(student, loss, source, train._asdict())
