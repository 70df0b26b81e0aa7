"""Image bytes to predictions, with numpy, Pillow and ONNX Runtime; never torch at import, never bentoml."""
