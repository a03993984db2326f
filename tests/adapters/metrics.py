"""Metrics and resizes, by the names of the golden checks."""

from functools import partial

import numpy as np

from diffjax import evaluation
from diffjax.evaluation import resize


def mmd_test(x, y, permutations, kernel):
    if kernel == "poly":
        return evaluation.mmd_test(x, y, permutations, evaluation.polynomial)
    pooled = np.concatenate([x, y]).astype(np.float64)
    gaussian = evaluation.gaussian(evaluation.median_distance(pooled))
    return evaluation.mmd_test(x, y, permutations, gaussian)


def antialiased(image, size, name):
    return resize.resize(image, size, resize.antialiased(getattr(resize, name)))


FUNCTIONS = {
    "fid": evaluation.fid,
    "sfid": evaluation.sfid,
    "kid": evaluation.kid,
    "kid_subsets": evaluation.kid_subsets,
    "inception_score": evaluation.inception_score,
    "precision_recall": evaluation.precision_recall,
    "precision_recall_strict": partial(evaluation.precision_recall, strict=True),
    "density_coverage": evaluation.density_coverage,
    "cmmd": evaluation.cmmd,
    "mmd_test": mmd_test,
    "fid_infinity": evaluation.fid_infinity,
    "is_infinity": evaluation.is_infinity,
    "vendi": evaluation.vendi,
    "auth_pct": lambda train, gen: 100 * evaluation.authenticity(train, gen),
    "nearest_ratio": evaluation.nearest_ratio,
    "copying_z": evaluation.copying_z,
    "copying_ct": evaluation.copying_ct,
    "psnr": evaluation.psnr,
    "ssim": evaluation.ssim,
    "ssim_reflect": evaluation.ssim_reflect,
    "resize": antialiased,
    "resize_torch_bilinear": partial(resize.resize, weights=resize.torch_bilinear),
    "resize_tf1_bilinear": partial(resize.resize, weights=resize.tf1_bilinear),
}
