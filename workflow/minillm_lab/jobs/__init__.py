"""How a module of the lab runs as a job, and what is common to all jobs."""
