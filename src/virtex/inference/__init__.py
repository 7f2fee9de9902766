"""Pretrained models at work: loading them and captioning images."""
