"""The asymmetric autoencoder (Zhu et al. 2023): a larger decoder that is shown what to keep."""

from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.autoencoder import AutoencoderKL, Decoder
from diffjax.models.resnet import nearest, nearest_to
from diffjax.types import Array

STEPS = 4  # how often the width may double; three of them halve the resolution


class KeptFeatures(nn.Module):
    """Features of the part of an image that is kept, at several resolutions.

    Attributes:
      first: channels of the first layer; each next one has twice as many.
      most: of the last layer, and at most.
    """

    first: int
    most: int

    @nn.compact
    def __call__(self, x: Array) -> dict[tuple[int, ...], Array]:
        """x (B, H, W, C) to features by their (height, width, channels)."""
        features = {}
        widths = [*(min(self.first * 2**i, self.most) for i in range(STEPS)), self.most]
        for i, width in enumerate(widths):
            options = {"strides": 2} if i > 1 else {}
            size = (4, 4) if i > 1 else (3, 3)
            x = nn.Conv(width, size, padding=1, name=f"layer_{i}", **options)(x)
            features[x.shape[1:]] = x
            x = nn.relu(x)
        return features


class KeepingDecoder(Decoder):
    """A decoder that blends features of the kept part of an image into each of its levels.

    Zhu et al. 2023, section 3.2: before each level, h mask + features (1 - mask).
    """

    @nn.compact
    def __call__(self, z: Array, image: Array | None = None, mask: Array | None = None) -> Array:
        """Latents to an image.

        Args:
          z: (B, h, w, c).
          image: (B, f h, f w, C) in [-1, 1], or None to decode z alone.
          mask: (B, f h, f w, 1), 1 where the image is drawn anew and 0 where it is kept.

        Returns:
          (B, f h, f w, out_channels), f = 2^(levels - 1).

        Raises:
          InputError: image or mask are not of the result's size.
        """
        factor = 2 ** (len(self.channels) - 1)
        size = (factor * z.shape[1], factor * z.shape[2])
        for name, given in (("image", image), ("mask", mask)):
            if given is not None and given.shape[1:3] != size:
                raise InputError(
                    f"the decoder makes images of {size[0]} x {size[1]}; got a kept {name} of "
                    f"{given.shape[1]} x {given.shape[2]}. Give one of that size."
                )
        keep = lambda x: x  # noqa: E731
        if image is not None and mask is not None:
            encode = KeptFeatures(self.channels[0], self.channels[-1], name="kept")
            features = encode(image * (1 - mask))

            def keep(x):
                m = nearest_to(mask, x.shape[1:3]).astype(x.dtype)
                return x * m + features[x.shape[1:]] * (1 - m)

        x = self.middle(self.style.conv(self.channels[-1], "conv_in")(z))
        for level in reversed(range(len(self.channels))):
            x = self.level(keep(x), level, self.blocks + 1, f"up_{level}")
            if level > 0:
                x = self.style.conv(x.shape[-1], f"upsample_{level}")(nearest(x))
        return self.output(keep(x))


class AsymmetricAutoencoder(AutoencoderKL):
    """`AutoencoderKL` with a `KeepingDecoder`."""

    def __call__(self, x: Array, mask: Array | None = None) -> tuple[Array, Array, Array]:
        """x (B, H, W, C) -> (reconstruction of the mean's latents, mean, logvar).

        Args:
          x: images in [-1, 1].
          mask: as for `decode`; with None the kept part is not shown.
        """
        mean, logvar = self.encode(x)
        return self.decode(mean, x, mask), mean, logvar

    def decode(self, z: Array, image: Array | None = None, mask: Array | None = None) -> Array:
        """Latents (B, h, w, c) -> x (B, H, W, C); image and mask as for `KeepingDecoder`."""
        z = self.from_latents(z) if self.post_quant_conv else z
        return self.decoder(z, image, mask)
