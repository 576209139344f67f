"""minillm-lab: what quantization does to a small language model on this machine."""

__version__ = "0.1.0"
