"""What several tests share: servers and peers to start, media to send, and eyes to look at what came out."""
