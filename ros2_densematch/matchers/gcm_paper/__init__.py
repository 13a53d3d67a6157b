"""`gcm_paper`: GCM as published, with any backbone and any patch descriptor."""
