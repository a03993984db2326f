"""Everything that is compared with one reference by one extractor of features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from diffjax import parallel
from diffjax.errors import InputError
from diffjax.evaluation import bits, compare, drawn, sides
from diffjax.evaluation.extractors import CLIP
from diffjax.evaluation.features import Features
from diffjax.evaluation.frechet import frechet_distance, moments

PIECE = 1000
"""Images whose features are kept together."""


class Comparison:
    """What every comparison of one call has in common.

    Attributes:
      asked: the flags of `diffjax.evaluate`.
      reference: the real side.
      extractor: of features.
      cache: folder of features.
      frechet: what the Frechet distance is called.
      real: features of the reference; None where it holds statistics alone.
    """

    def __init__(
        self, asked: Mapping[str, Any], reference: sides.Side, extractor: Features, cache: Path
    ):
        self.asked, self.reference, self.extractor, self.cache = asked, reference, extractor, cache
        name = "FID" if extractor.canonical else "Frechet distance"
        self.frechet = f"r{name}" if asked["paired"] and extractor.canonical else name
        self.real = None if reference.moments is not None else self.sets(reference)

    def sets(self, side: sides.Side) -> compare.Sets:
        """Features and logits of a side, kept in pieces, which the processes share out."""
        files, quiet = [], not parallel.is_main()
        count, own = jax.process_count(), jax.process_index()
        bar = tqdm(total=len(side.images), desc="features", leave=False, disable=quiet)
        for number, first in enumerate(range(0, len(side.images), PIECE)):
            mark = f"features-{side.fingerprint}-{self.extractor.fingerprint}-{first}.npz"
            images = side.images[first : first + PIECE]
            files.append(self.cache / mark)
            if number % count == own and not files[-1].is_file():
                drawn.write_whole(files[-1], self.extractor.all_of(images))
            bar.update(len(images))
        bar.close()
        parallel.wait_for_all("diffjax.evaluate")
        parts = [dict(np.load(file)) for file in files]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        return compare.Sets(labels=side.labels, **joined)

    def families(self, judged: compare.Sets) -> list[compare.Family]:
        """The metrics of samples against the reference, as `compare.metrics_of`."""
        clip = (self.asked["features"] or "").startswith(CLIP)
        most = self.asked["pairwise"]
        return compare.metrics_of(self.frechet, self.real, judged, clip=clip, most=most)

    def judge(self, name: str, side: sides.Side) -> tuple[float, float, float]:
        """One metric of a side, with its interval."""
        judged = self.sets(side)
        (family,) = (f for f in self.families(judged) if name in f.better)
        found = compare.interval(family.values, self.real, judged, self.asked["groups"])
        place = list(family.better).index(name)
        return tuple(float(values[place]) for values in found)

    def metric(self, labelled: bool) -> tuple[str, str]:
        """The metric that --metric names, and what is better.

        Args:
          labelled: whether samples have labels.

        Returns:
          Its name in the table, and "lower" or "higher".

        Raises:
          InputError: there is none of that name, or it has no best.
        """
        if self.real is None:
            raise InputError("a reference of statistics alone has no metric for --ema, --samplers.")
        stand_in = self.real if labelled else self.real._replace(labels=None)
        better = compare.better_of(self.families(stand_in))
        known = {name: how for name, how in better.items() if how != "floor"}
        wanted = self.asked["metric"] or self.frechet
        for name, how in known.items():
            if wanted.lower().replace("_", " ") == name.lower():
                return name, how
        raise InputError(f"--metric must be one of {', '.join(known)}; got {wanted!r}.")

    def figures(self, samples: sides.Side, judged: compare.Sets) -> tuple[dict, list[str]]:
        """Every metric that the two sides allow, and notes.

        Args:
          samples: the side that is judged.
          judged: its features.

        Returns:
          Name to `compare.Figure`, and sentences.
        """
        asked, real = self.asked, self.real
        if real is None:
            value = frechet_distance(*self.reference.moments, *moments(judged.features))
            figures = {self.frechet: compare.Figure(value, *[np.nan] * 3, "lower")}
            notes = ["the reference holds statistics alone: no other metric"]
        else:
            families = self.families(judged)
            with tqdm(total=len(families), desc="metrics", leave=False) as bar:
                figures, notes = compare.compare(
                    families, real, judged, asked["groups"], bar.update
                )
        sizes = [len(side.features) for side in (real, judged) if side is not None]
        if real is not None and 0 < asked["pairwise"] < max(sizes):
            names = ", ".join(compare.PAIRWISE | compare.MEMORISATION)
            notes.append(f"{names} are of {asked['pairwise']:,} rows of a side at most")
        if asked["paired"]:
            figures |= compare.reconstruction(samples.images, self.reference.images)
        if len(judged.features) < compare.ENOUGH:
            notes.append(
                f"{len(judged.features):,} samples are fewer than {compare.ENOUGH:,}: the Frechet "
                "distance is biased upwards; the extrapolated one beside it is less so"
            )
        return figures, notes

    def export(self, path: Path) -> None:
        """Write the reference's statistics as other evaluators read them: mu and sigma."""
        mu, sigma = moments(self.real.features)
        names = {"features": self.extractor.name, "num": len(self.real.features)}
        with open(path, "wb") as file:
            np.savez(file, mu=mu, sigma=sigma, **names)

    def likelihoods(self, run: drawn.Run, samples: sides.Side) -> tuple[dict, np.ndarray]:
        """Bits per dimension of some real images as a figure, and of some samples each.

        Args:
          run: whose likelihood it is.
          samples: what it drew.

        Returns:
          Name to figure, and (n,) bits per dimension of the first samples.

        Raises:
          InputError: a latent model, or labels that are missing.
        """
        num = self.asked["likelihood"]
        rows = np.random.default_rng(0).permutation(len(self.reference.images))[:num]
        found = []
        with tqdm(total=2 * num, desc="bits/dim", leave=False) as bar:
            for side, chosen in ((self.reference, rows), (samples, slice(num))):
                labels = None if side.labels is None else side.labels[chosen]
                given = (side.images[chosen], labels, self.asked["seed"], bar.update)
                found.append(bits.bits_per_dim(run, *given))
        real, of_samples = found
        own = "" if self.asked["reference"] else "training "
        return {f"bits/dim of {len(real):,} {own}images": bits.figure(real)}, of_samples
