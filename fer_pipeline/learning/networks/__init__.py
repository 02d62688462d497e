"""Networks in plain Keras 3: the networks of the package, and custom networks of users."""
