"""Data sets, found by the names of this package's files: `load(name, **options) -> Dataset`."""
