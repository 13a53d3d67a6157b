"""What NCNet and Sparse-NCNet share: cells, their matches, and where they lie in the images."""
