"""What is timed: an artefact, an ONNX file or a checkpoint, with its inputs."""
