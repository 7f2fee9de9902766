"""Readers of data formats: COCO's JSON, tables and folders."""
