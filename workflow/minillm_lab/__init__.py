"""minillm-lab: what quantization does to a small language model on this machine."""
