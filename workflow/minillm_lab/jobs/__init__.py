"""Jobs: how a module of the lab runs as one, and the code that all jobs share."""
