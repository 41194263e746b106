"""The live cluster: Ray, reached through a child process, so that nothing here can take the control plane down."""
