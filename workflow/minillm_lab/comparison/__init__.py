"""All variants together: ratios, ties, what limits them, which to take."""
