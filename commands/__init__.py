"""The commands of `petalpaw`, a file for each part of the line; what a command needs is imported when it runs."""
