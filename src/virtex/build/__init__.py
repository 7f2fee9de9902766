"""Where a configuration becomes objects: data, models, optimizers."""
