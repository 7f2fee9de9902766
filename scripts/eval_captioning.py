"""The published script for captions; `virtex caption` and `virtex score` do the work."""

import tempfile
from pathlib import Path

import published_flags as flags

parser = flags.script("Caption images, and score the captions of COCO's val2017.")
parser.add_argument("--images", "--data-root", help="directory of images (default: COCO val2017)")
parser.add_argument("--output", help="JSON file for the captions, as image_id and caption")
parser.add_argument("--calc-metrics", action="store_true", help="score them by BLEU, CIDEr …")

if __name__ == "__main__":
    given = flags.parse(parser)
    root = Path(flags.settings(given.config, []).data.root)
    words = [given.images or str(root / "val2017"), *flags.device(given), "--format", "coco"]
    words += flags.weights(given)
    words += ["--config", given.config] if given.config else []
    with tempfile.TemporaryDirectory() as directory:
        output = given.output or f"{directory}/captions.json" * given.calc_metrics
        status = flags.run("caption", *words, *(["--output", output] if output else []))
        if given.calc_metrics and status == 0:
            truth = str(root / "annotations" / "captions_val2017.json")
            status = flags.run("score", output, truth)
    raise SystemExit(status)
