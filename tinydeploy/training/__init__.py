"""Turn a trained network into one that trains on with its integers' rounding, and into integers."""

from tinydeploy.training.network import export, prepare

__all__ = ["export", "prepare"]
