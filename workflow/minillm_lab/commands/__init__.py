"""The console program ``minillm-lab``: one module for each command."""
