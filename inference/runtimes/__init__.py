"""What runs an artifact: one module per runtime, imported when it is chosen."""
