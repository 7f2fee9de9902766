"""The published script for detection with detectron2; it says what replaces it."""

import argparse

import published_flags as flags

TEXT = """Detectron2 is not started from here any more. `virtex evaluate detection --data DATA
--checkpoint FILE` trains and judges a detector on COCO or VOC2007 with torchvision
(docs/detection.md). `virtex export detectron2 --checkpoint FILE --output DIR` writes the backbone
for detectron2's own training script (docs/export.md)."""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=TEXT, epilog=flags.PAGE)
    parser.parse_known_args()
    parser.exit(2, f"{TEXT}\n{flags.PAGE}\n")
