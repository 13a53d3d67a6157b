"""DFM: matching down the pyramid of an ImageNet classifier, with no training for matching."""
