"""RTMP sessions without sockets: handshake, commands, both roles, and what a publisher's messages mean for a stream."""
