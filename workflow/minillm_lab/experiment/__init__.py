"""The experiment: what config.yaml may say, and which files and settings follow from it."""
