"""Run -> artifacts.

The modules import Keras and TensorFlow when they are used; importing this package does not.
"""

from imgclf.exporting.artifacts import export

__all__ = ["export"]
