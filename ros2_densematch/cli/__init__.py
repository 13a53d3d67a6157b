"""The `densematch` command: one file per subcommand, registered by name in `main`."""
