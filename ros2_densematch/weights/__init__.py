"""The weights that ship with the package: what each file is, where it comes from, and that it is whole."""
