"""DTSC on its own port: plays streams to other servers, and hands those that push over to the input of their stream; and DTSC pushed to
other servers."""

from mist.outputs.dtsc.connection import OUTPUT
from mist.outputs.dtsc.push import PUSH

__all__ = ["OUTPUT", "PUSH"]
