"""The composition root: builds objects from options, and does nothing else."""
