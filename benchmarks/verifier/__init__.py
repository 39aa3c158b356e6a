"""How the shipped verifier was made: pairs of prompts, training, the ONNX file, its card."""
