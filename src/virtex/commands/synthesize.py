"""`virtex synthesize`: draw scenes with captions into a directory.

A COCO tree to pretrain on, and an ImageFolder and a VOC2007 tree to evaluate with.
"""

import argparse

from virtex.commands.arguments import add_quiet_argument, local_path
from virtex.commands.progress import Progress

TREES = ("coco", "imagefolder", "voc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("output", type=local_path, help="directory to create, for DATA.ROOT")
    counts = parser.add_argument_group("number of images")
    counts.add_argument(
        "--train", type=int, default=8000, help="training images in the COCO tree (default: 8000)"
    )
    counts.add_argument(
        "--val", type=int, default=500, help="held-out images in the COCO tree (default: 500)"
    )
    counts.add_argument(
        "--evaluation-train",
        type=int,
        default=1200,
        help="training images in each of the ImageFolder and VOC trees (default: 1200)",
    )
    counts.add_argument(
        "--evaluation-val",
        type=int,
        default=600,
        help="test images in each of the ImageFolder and VOC trees (default: 600)",
    )
    parser.add_argument(
        "--size", type=int, default=80, help="side length of the images in pixels (default: 80)"
    )
    parser.add_argument(
        "--max-objects",
        type=int,
        default=3,
        help="maximum number of objects in an image, 1 to 3 (default: 3)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the scenes (default: 0)"
    )
    parser.add_argument(
        "--only",
        choices=TREES,
        action="append",
        help="write only this tree; can be given several times",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the scenes of an earlier call"
    )
    add_quiet_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the trees; returns the exit status. Raises UserError for impossible values."""
    from virtex.synthetic.coco_tree import write_coco_tree
    from virtex.synthetic.imagefolder_tree import write_imagefolder_tree
    from virtex.synthetic.publishing import atomic_directory
    from virtex.synthetic.trees import Amount, Drawing, check_amount
    from virtex.synthetic.voc_tree import write_voc_tree
    from virtex.synthetic.words import SHAPES

    drawing = Drawing(arguments.seed, arguments.size, arguments.max_objects)
    pretraining = Amount(arguments.train, arguments.val)
    evaluation = Amount(arguments.evaluation_train, arguments.evaluation_val)
    work = {
        "coco": (write_coco_tree, pretraining),
        "imagefolder": (write_imagefolder_tree, evaluation),
        "voc": (write_voc_tree, evaluation),
    }
    trees = [tree for tree in TREES if arguments.only is None or tree in arguments.only]
    if "coco" in trees:
        check_amount(pretraining, "the COCO tree")
    if trees != ["coco"]:
        check_amount(evaluation, "each evaluation tree", least=len(SHAPES))
    options = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("output", "overwrite", "quiet")
    }
    with atomic_directory(arguments.output, arguments.overwrite, options) as root:
        for tree in trees:
            write, amount = work[tree]
            total = amount.train + amount.val
            with Progress(tree, total, "images", quiet=arguments.quiet) as progress:
                write(root, drawing, amount, progress.advance)
    print(f"scenes written to {arguments.output}", flush=True)
    return 0
