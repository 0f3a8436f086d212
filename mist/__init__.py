"""mist: a live and on-demand media server that serves any stream in any format."""

__version__ = "0.1.0"
