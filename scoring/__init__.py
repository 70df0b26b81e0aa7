"""Offline: any number of pictures to a table, one row per input, with the answers that the service gives."""
