"""The `keras-opt` command: one file a command, each parses, calls, prints."""
