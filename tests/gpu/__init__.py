"""What only a machine with NVIDIA GPUs can show; `make test-gpu`."""
