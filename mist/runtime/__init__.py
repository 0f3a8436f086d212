"""Processes: spawner, guardians, workers, checkpoints and the log."""
