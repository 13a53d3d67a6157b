"""Where frames come from: bags, videos, image folders and recorded sequences, opened by `opening.open_source`."""
