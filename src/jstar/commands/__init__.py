"""The subcommands of `jstar`; heavy imports wait inside each until it is called."""
