"""Configuration, control API and statistics. Never touches media."""
