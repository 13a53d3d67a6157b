"""`sparse_ncnet`: neighbourhood consensus on the k best neighbours of every cell."""
