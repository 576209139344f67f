"""Speed, load time and memory: one round in a fresh process, and collecting rounds."""

TOKENS_AT_DEPTH = 16  # decoded after a prompt of each of the depths
