"""Readers of data sets: files on the disk as examples with images, captions and objects."""
