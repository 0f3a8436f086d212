"""Codec headers, messages, sessions and playlists as bytes in, values out: no socket, file or clock."""
