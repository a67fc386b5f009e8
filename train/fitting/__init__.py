"""What `rtdecode fit` asks of a system (`fitter`), and how the shipped system does it."""
