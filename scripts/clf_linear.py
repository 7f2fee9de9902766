"""The published script for ImageNet and iNaturalist; `virtex evaluate finetune` does the work."""

import published_flags as flags

parser = flags.downstream_script("Train a linear classifier, or fine-tune a backbone.")
forwarded = ("log-every", "checkpoint-every", "num-machines", "machine-rank", "dist-url")
for name in forwarded:
    parser.add_argument(f"--{name}", help="as in `virtex evaluate finetune`")

# What the published script does whatever its settings are.
fixed = ["MODEL.NAME", "image_classification", "MODEL.TEXTUAL.NAME", "none"]
fixed += ["OPTIM.CLIP_GRAD_NORM", "1e9"]

if __name__ == "__main__":
    given = flags.parse(parser)
    data = flags.settings(given.down_config, given.down_config_override).data.root
    network = flags.settings(given.config, []).model.visual.name
    keys, values = given.down_config_override[::2], given.down_config_override[1::2]
    pairs = [pair for pair in zip(keys, values, strict=True) if pair[0] != "DATA.ROOT"]
    words = ["--data", data, "--config", given.down_config, *flags.weights(given)]
    words += ["--network", network, "--serialization-dir", str(given.serialization_dir or "runs")]
    words += ["--config-override", *fixed, *(word for pair in pairs for word in pair)]
    for name in (*forwarded, "num-gpus-per-machine", "cpu-workers"):
        value = vars(given)[name.replace("-", "_")]
        words += [] if value is None else [f"--{name}", str(value)]
    raise SystemExit(flags.run("evaluate", "finetune", *words))
