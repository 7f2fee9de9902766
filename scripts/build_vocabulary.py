"""The published script that trains a vocabulary; `virtex tokenizer` does the work."""

import argparse

import published_flags as flags

parser = argparse.ArgumentParser(description="Train a vocabulary.", epilog=flags.PAGE)
parser.add_argument("-c", "--captions", default="datasets/coco/annotations/captions_train2017.json")
parser.add_argument("-s", "--vocab-size", default="10000")
parser.add_argument("-o", "--output-prefix", default="datasets/vocab/coco_10k")
parser.add_argument("-l", "--do-lower-case", action="store_true", help="the default")
parser.add_argument("-a", "--keep-accents", action="store_true", help="normalization nfkc_lower")

if __name__ == "__main__":
    given = parser.parse_args()
    words = ["--vocab-size", given.vocab_size, "--output", f"{given.output_prefix}.model"]
    words += ["--normalization", "nfkc_lower"] if given.keep_accents else []
    raise SystemExit(flags.run("tokenizer", given.captions, *words))
