"""The networks of the package, one module each: `build(size, classes, **options)`."""
