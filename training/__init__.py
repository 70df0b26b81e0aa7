"""Labelled photos to a measured, calibrated classifier: recipe → data → network → stages → figures → run folder."""
