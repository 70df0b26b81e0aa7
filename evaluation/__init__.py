"""How good answers are, in figures and pictures: one arithmetic for training runs and for scored photos."""
