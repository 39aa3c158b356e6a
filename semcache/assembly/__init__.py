"""The composition root: from options to objects, and nothing else."""
