"""Quality: the reference, the divergence from it, questions, the answer side by side."""
