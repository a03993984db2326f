"""Other libraries' weights as our parameters, and back."""

from diffjax.pretrained.architecture import Autoencoder, Pretrained, PretrainedClassifier
from diffjax.pretrained.load import load, save_safetensors

__all__ = ["Autoencoder", "Pretrained", "PretrainedClassifier", "load", "save_safetensors"]
