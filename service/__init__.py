"""The BentoML service: HTTP around the classifiers of a model repository."""
