"""Annotation formats of the field, to and from the rows of `events`.

`read_annotations` and `write_annotations` take any of `FORMATS`; each format has a file of its own
with its reader and its writer.
"""
