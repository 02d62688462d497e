"""The networks of the package, one module with a `build(size, classes, **options)` each."""
