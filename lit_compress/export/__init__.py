"""Export a network: capture its graph with :func:`torch.export.export`, write it as ONNX file."""
