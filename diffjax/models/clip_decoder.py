"""How unCLIP's decoder (Ramesh et al. 2022, section 2.1) is told a text and a picture's embedding.

Layers have the names that its published files use.
"""

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.transformer import dense
from diffjax.types import Array


class ClipContext(nn.Module):
    """A picture's embedding and a text as tokens to attend to, and as a vector beside the time's.

    Attributes:
      width: of the tokens.
      embedding: width of the time's embedding.
      extra: tokens that the picture's embedding becomes, before those of the text.
    """

    width: int
    embedding: int
    extra: int = 4

    @nn.compact
    def __call__(self, image: Array, given: Array, text: Array, states: Array) -> tuple:
        """The tokens (B, extra + L, width) and the embedding (B, embedding).

        Args:
          image: embeddings of pictures (B, D).
          given: (B,), 0 where a learned embedding stands in the picture's place.
          text: embeddings of texts (B, D).
          states: of the text's tokens (B, L, D).
        """

        def linear(x, width, name):
            return dense(width, x.dtype, name=name)(x)

        name = "learned_classifier_free_guidance_embeddings"
        none = self.param(name, nn.initializers.zeros, image.shape[-1:])
        image = jnp.where(given[:, None] > 0, image, none[None].astype(image.dtype))
        own = linear(image, self.embedding, "clip_image_embeddings_project_to_time_embeddings")
        both = own + linear(text, self.embedding, "embedding_proj")
        tokens = linear(image, self.extra * self.width, "clip_extra_context_tokens_proj")
        tokens = tokens.reshape(-1, self.width, self.extra).transpose(0, 2, 1)
        states = linear(states, self.width, "encoder_hidden_states_proj")
        states = nn.LayerNorm(1e-5, name="text_encoder_hidden_states_norm")(states)
        return jnp.concatenate([tokens, states], axis=1), both
