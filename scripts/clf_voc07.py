"""The published script for SVMs on VOC2007; `virtex evaluate voc07` does the work."""

import published_flags as flags

parser = flags.downstream_script("Fit the SVMs of the VOC2007 protocol to frozen features.")

if __name__ == "__main__":
    given = flags.parse(parser)
    data = flags.settings(given.down_config, given.down_config_override).data.root
    words = ["--data", data, *flags.weights(given), *flags.device(given)]
    words += ["--config", given.config] if given.config else []
    words += ["--cpu-workers", str(given.cpu_workers)]
    if given.serialization_dir:
        words += ["--output", str(given.serialization_dir / "results.json")]
    raise SystemExit(flags.run("evaluate", "voc07", *words))
