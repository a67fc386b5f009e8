"""What `rtdecode fit` asks of a system, and the shipped system's answer."""
