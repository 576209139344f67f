"""All variants together: ratios, ties, states, the limit of decoding, and the one to take."""
