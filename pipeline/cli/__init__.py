"""The command-line tool of the pipeline: one file for each command."""
