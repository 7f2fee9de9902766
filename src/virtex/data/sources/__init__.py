"""Readers of the data formats, from COCO's JSON to tables and folders."""
