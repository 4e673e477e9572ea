"""Readers of data sets: files on the disk as examples with images, captions and objects."""

from fixlip.extras import need

need("reading a data set", "data")
