"""Use of pretrained models: loading them and captioning images."""
