"""Programs that measure; each prints one line of JSON."""
