import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photograph():
    """A smooth, colourful image, uint8 (90, 120, 3)."""
    y, x = np.mgrid[0:90, 0:120]
    channels = [128 + 100 * np.sin(x / 17 + y / 9), 60 + y, 255 - x - 40 * np.cos(y / 7)]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


@pytest.fixture
def write_coco(tmp_path, photograph):
    """A function that writes a COCO tree of small JPEG files: {image id: captions} to its root."""

    def write(captions, split="train", **members):
        directory = tmp_path / f"{split}2017"
        directory.mkdir(exist_ok=True)
        annotations = tmp_path / "annotations"
        annotations.mkdir(exist_ok=True)
        for image_id in captions:
            # The first pixel tells the images apart.
            image = np.roll(photograph[:40, :50], image_id, axis=1)
            Image.fromarray(image).save(directory / f"{image_id:012}.jpg", quality=95)
        content = {
            "info": {"year": 2017},
            "images": [{"id": i, "file_name": f"{i:012}.jpg"} for i in captions],
            "annotations": [
                {"id": 10 * i + n, "image_id": i, "caption": caption}
                for i, texts in captions.items()
                for n, caption in enumerate(texts)
            ],
        }
        path = annotations / f"captions_{split}2017.json"
        path.write_text(json.dumps(content | members), encoding="utf-8")
        return tmp_path

    return write
