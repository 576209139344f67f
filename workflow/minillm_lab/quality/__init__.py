"""Quality: the reference, the divergence from it, questions, and answers side by side."""
