"""Dataset + settings -> Run."""

from imgclf import environment

environment.prepare_keras()
