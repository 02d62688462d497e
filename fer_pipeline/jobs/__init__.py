"""The jobs: each module is one, with `main(argv)`, and a file that `spark-submit` can run."""
