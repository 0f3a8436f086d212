"""DTSC on its own port: plays streams to other servers, and hands those that push over to the input of their stream."""

from mist.outputs.dtsc.connection import OUTPUT

__all__ = ["OUTPUT"]
