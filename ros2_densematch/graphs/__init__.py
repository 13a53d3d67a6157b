"""Parts of matchers as ONNX graphs: written, compared with PyTorch, kept in a cache and run."""
