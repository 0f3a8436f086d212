"""Where streams go: one module (or folder) for each format and protocol."""
