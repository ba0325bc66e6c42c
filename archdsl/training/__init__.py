"""Training: data in a fixed order, schedules, the loop, and the folder of a run."""
