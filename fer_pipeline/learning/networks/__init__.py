"""Networks in plain Keras 3: those of the package, the user's own, and how both are built."""
