"""Sockets and files, no media."""
