"""Take a trained network to verified firmware on a microcontroller."""

__version__ = "0.1.0"
