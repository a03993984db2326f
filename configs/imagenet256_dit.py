"""DiT-XL/2 on ImageNet at 256x256, in the latents of Stable Diffusion's autoencoder.

    python train.py configs/imagenet256_dit.py --latents-path latents.npz --workdir runs/dit

Data: the 1,281,167 training images, cut to their central square of 256 pixels and encoded once
by the "ft-EMA" autoencoder: an npz of `x` (N, 32, 32, 4), 0.18215 times a draw, and `label` (N,).
The paper's FID of 50,000 samples is 19.5 after 400,000 steps, and 2.27 after seven million at
guidance scale 1.5 (Peebles & Xie 2023). `sample.py runs/dit --autoencoder FOLDER` decodes.
"""

from diffjax import conditioning, data, losses, media, recipe, samplers, schedules, weighting
from diffjax.experiment import Experiment, Sampling, classifier_free
from diffjax.parameterization import at_steps, predict_eps
from diffjax.pretrained.model import decoder

OPTIMIZER = {"steps": 400_000, "batch_size": 256, "lr": 1e-4, "warmup": 0, "clip_norm": None}
CLASSES, T, VARIANCE = 1000, 1000, {"variance": "learned"}
SAMPLING = Sampling(samplers.ancestral, steps=250, guidance_scale=1.5, options=VARIANCE)
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
    schedule, predicts = schedules.from_betas(schedules.linear_betas(T)), at_steps(predict_eps, T)
    label, module = conditioning.label(CLASSES), dit(num_classes=CLASSES)
    shape, given = (size, size, 4), ((label,), media.arrays, classifier_free)
    model = recipe.gaussian_model(module, schedule, predicts, shape, *given, sampling=SAMPLING)
    density = weighting.on_steps(weighting.uniform(schedule), schedule, T)
    loss = losses.hybrid_loss(recipe.network(module), schedule, predicts, density, T)
    return Experiment(
        model=decoder(model),
        source=lambda: data.latents(latents_path, CLASSES),
        loss=lambda frozen: dropped(loss, label),
        **train._asdict(),
    )
