"""A stream as Python sees it: names, tracks, selectors, publisher and reader."""
