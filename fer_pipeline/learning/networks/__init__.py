"""Networks in plain Keras 3: those of the package, and custom ones from a user's module."""
