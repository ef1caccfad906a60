"""The command-line tool of the training: one file for each command."""
