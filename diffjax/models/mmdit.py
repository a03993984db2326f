"""MMDiT, the transformer of two streams of Stable Diffusion 3 (Esser et al. 2024, Figure 2)."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.dit import Final, modulation
from diffjax.models.layers import Dtype, attention
from diffjax.models.patches import Embedding, VectorEmbedding, check_patches, patchify, unpatchify
from diffjax.models.position import Cells, cells, no_rotation, sincos_2d
from diffjax.models.stacking import plus, repeat, spread
from diffjax.models.transformer import MLP, QKV, BlockContext, LayerNorm, dense
from diffjax.types import Array, Cond


class StreamIn(nn.Module):
    """Modulated norm, then queries, keys and values, of one stream.

    Attributes:
      pieces: of the modulation: 6, or 2 where nothing follows the attention.
      heads, qkv, norm, dtype: as in `JointBlock`.
    """

    pieces: int
    heads: int
    qkv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    dtype: Dtype

    @nn.compact
    def __call__(self, h: Array, context: BlockContext) -> tuple[tuple, list[Array]]:
        """h (B, T, D) to ((q, k, v), the rest of the modulation)."""
        parts = modulation(context.embedding, self.pieces, self.dtype, h.shape[-1])
        shift, scale, *rest = parts
        x = self.norm(name="norm")(h) * (1 + scale) + shift
        return self.qkv(heads=self.heads, dtype=self.dtype, name="qkv")(x, context.where), rest


class StreamOut(nn.Module):
    """What follows the attention in one stream: projection, gate and MLP.

    Attributes:
      mlp, norm, dtype: as in `JointBlock`.
    """

    mlp: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    dtype: Dtype

    @nn.compact
    def __call__(self, h: Array, attended: Array, parts: list[Array]) -> Array:
        """h and what it attended to, (B, T, D), to its shape."""
        gate, shift, scale, mlp_gate = parts
        h = h + gate * dense(h.shape[-1], self.dtype, name="out")(attended)
        x = self.norm(name="norm")(h) * (1 + scale) + shift
        return h + mlp_gate * self.mlp(dtype=self.dtype, name="mlp")(x)


class JointBlock(nn.Module):
    """Image and text attend to each other and themselves, each by its own weights.

    Attributes:
      heads: number of attention heads.
      qkv: makes queries, keys and values; rotations apply to the image alone. The paper's
        larger networks have `partial(QKV, qk_norm=RMSNorm)`.
      mlp: makes the MLPs.
      norm: makes the norms.
      last: whether the text ends here, and only its keys and values are made.
      dual: whether the image also attends to itself alone, beside the joint attention (Stable
        Diffusion 3.5 medium).
      dtype: type of the computation.
    """

    heads: int
    qkv: Callable[..., nn.Module] = QKV
    mlp: Callable[..., nn.Module] = MLP
    norm: Callable[..., nn.Module] = LayerNorm
    last: bool = False
    dual: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, streams: tuple[Array, Array], context: BlockContext) -> tuple[Array, Array]:
        """(image (B, T, D), text (B, L, D)) to their shapes."""
        image, text = streams
        enter = partial(StreamIn, heads=self.heads, norm=self.norm, dtype=self.dtype)
        leave = partial(StreamOut, self.mlp, self.norm, self.dtype)
        pieces = 9 if self.dual else 6
        ours, parts = enter(pieces, qkv=self.qkv, name="image_in")(image, context)
        plain = partial(self.qkv, rotate=no_rotation)
        theirs, text_parts = enter(2 if self.last else 6, qkv=plain, name="text_in")(text, context)
        joined = (jnp.concatenate(pair, axis=1) for pair in zip(ours, theirs, strict=True))
        h = attention(*joined, context.mask)
        attended, text_attended = jnp.split(h, [image.shape[1]], axis=1)
        if self.dual:
            image = image + self.alone(image, parts[4:], context)
        image = leave(name="image_out")(image, attended, parts[:4])
        if not self.last:
            text = leave(name="text_out")(text, text_attended, text_parts)
        return image, text

    def alone(self, image: Array, parts: list[Array], context: BlockContext) -> Array:
        """What the image adds by attention to itself alone; in a compact method."""
        shift, scale, gate = parts
        x = self.norm(name="norm_alone")(image) * (1 + scale) + shift
        qkv = self.qkv(heads=self.heads, dtype=self.dtype, name="qkv_alone")(x, context.where)
        return gate * dense(image.shape[-1], self.dtype, name="out_alone")(attention(*qkv))


class MMDiT(nn.Module):
    """Patches and text tokens in two streams that attend jointly: Esser et al. 2024, section 4.

    The embedding that modulates is of time, and of a label or a vector, such as the pooled text
    of Stable Diffusion 3, where the network has been made for them.

    Attributes:
      width: channels of a token, divisible by 4.
      depth: number of blocks, the last of which ends the text.
      heads: attention heads, a divisor of the width.
      patch_size: height and width of a patch.
      num_classes: as in `DiT`.
      vector: whether a vector (B, V) is taken as a condition.
      out_channels: None for as many as the input.
      block: makes a block, see `JointBlock`.
      dual: number of blocks at the beginning with a second attention, see `JointBlock`.
      position: (cells, width) -> table (T, width) that is added to the patches.
      remat: recompute blocks in the backward pass to save memory.
      scan_blocks: compile one block for all but the last; see `stack_blocks`.
      dtype: type of the computation, float32 or bfloat16; the output is float32.
    """

    width: int = 1536
    depth: int = 24
    heads: int = 24
    patch_size: int = 2
    num_classes: int = 0
    vector: bool = False
    out_channels: int | None = None
    block: Callable[..., nn.Module] = JointBlock
    dual: int = 0
    position: Callable[[Cells, int], Array] = sincos_2d
    remat: bool = False
    scan_blocks: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """x (B, H, W, C), t (B,) in steps, cond with tokens (B, L, E) -> (B, H, W, out).

        cond may also have a token_mask (B, L), and needs the label or vector it was made for. To
        the image, as it leaves each block but the last, cond["residuals"] of a ControlNet are
        added, see `stacking.spread`.
        """
        image, text, context = self.enter(x, t, cond)
        _, height, width, channels = x.shape

        def step(block, streams, residual):
            image, text = block(streams, context)
            return (plus(image, residual), text), None

        streams, _ = self.repeat(step, (image, text), self.depth - 1, cond)
        options = {"dual": True} if self.dual >= self.depth else {}
        make = partial(self.block, heads=self.heads, dtype=self.dtype, **options)
        image, _ = make(last=True, name="last")(streams, context)
        features = self.patch_size**2 * (self.out_channels or channels)
        h = Final(features, dtype=self.dtype, name="final")(image, context.embedding)
        return unpatchify(h, height, width, self.patch_size)

    def repeat(
        self, step: Callable, streams: tuple[Array, Array], blocks: int, cond: Cond = None
    ) -> tuple:
        """`stacking.repeat` of blocks, with this network's options and the residuals of cond."""
        residuals = spread(cond, streams[0], self.depth, blocks, self.scan_blocks)
        make = partial(self.block, heads=self.heads, dtype=self.dtype)
        options = {"remat": self.remat, "scan": self.scan_blocks}
        dual, outputs = min(self.dual, blocks), []
        for first, last, own in ((0, dual, {"dual": True}), (dual, blocks, {})):
            if first < last:
                inputs = None if residuals is None else residuals[first:last]
                run = partial(repeat, partial(make, **own), step, first=first, inputs=inputs)
                streams, more = run(carry=streams, depth=last - first, **options)
                outputs.append(more)
        return streams, outputs[0] if len(outputs) == 1 else [*outputs[0], *outputs[1]]

    def enter(self, x: Array, t: Array, cond: Cond) -> tuple[Array, Array, BlockContext]:
        """(image tokens (B, T, D), text tokens (B, L, D), what blocks see); in a compact method."""
        if not cond or "tokens" not in cond:
            raise InputError('MMDiT needs cond["tokens"] (B, L, E); got none.')
        check_patches(self, x, t)
        b, height, width, _ = x.shape
        where = cells(height // self.patch_size, width // self.patch_size)
        image = dense(self.width, self.dtype, name="patches")(patchify(x, self.patch_size))
        image = image + jnp.asarray(self.position(where, self.width), self.dtype)[None]
        text = dense(self.width, self.dtype, name="text")(cond["tokens"])
        embed = Embedding(self.width, self.num_classes, dtype=self.dtype, name="embedding")
        mask = cond.get("token_mask")
        if mask is not None:
            seen = jnp.ones((b, image.shape[1]), bool)
            mask = jnp.concatenate([seen, mask.astype(bool)], axis=1)
        embedding = embed(t, cond)
        if self.vector:
            embedding = embedding + VectorEmbedding(self.width, self.dtype, name="vector")(cond)
        return image, text, BlockContext(embedding, where, mask=mask)
