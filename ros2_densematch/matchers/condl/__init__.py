"""ConDL: dense descriptors at any sampling rate, matched by exact mutual nearest neighbours in bounded memory."""
