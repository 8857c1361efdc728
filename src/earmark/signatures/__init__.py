"""What is measured: tensors in, frozen results out; no model, file, network or print."""
