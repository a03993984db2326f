"""Encoders of text and of pictures that published systems are conditioned on."""

from diffjax.models.text.bert import Bert
from diffjax.models.text.clip import CLIPModel, CLIPText, CLIPVision
from diffjax.models.text.encoding import Encoding
from diffjax.models.text.siglip import SiglipVision
from diffjax.models.text.t5 import T5Encoder

__all__ = ["Bert", "CLIPModel", "CLIPText", "CLIPVision", "Encoding", "SiglipVision", "T5Encoder"]
