"""Matroska and WebM: what the engines need to know of tracks.   Spec: RFC 9559 and the Matroska codec mappings."""
