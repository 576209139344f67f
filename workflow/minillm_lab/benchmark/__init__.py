"""Speed, load time and memory: one round in a fresh process, and collecting rounds."""
