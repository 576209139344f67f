"""Speed, load time and memory: rounds, trials, and collecting them into a result."""
