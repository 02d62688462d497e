"""Networks of the package; each module has a function `build(size, classes, **options)`."""
