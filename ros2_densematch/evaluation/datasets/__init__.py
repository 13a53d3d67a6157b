"""What is evaluated on: one module a folder layout, each giving pairs of images with their truth."""
