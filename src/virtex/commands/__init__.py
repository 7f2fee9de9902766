"""The sub-commands of `virtex`, a module each: `add_arguments` and `run`; nothing imports them."""
