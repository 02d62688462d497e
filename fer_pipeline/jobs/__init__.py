"""The command lines of the jobs.

Each module is one job, with a function `main(argv)`. `spark-submit` can run the module's file.
"""
