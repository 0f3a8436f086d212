"""The HTTP listener: its own pages, and the way to every output that is reached by URL."""

from mist.outputs.http.listener import HttpOutput

OUTPUT = HttpOutput()
