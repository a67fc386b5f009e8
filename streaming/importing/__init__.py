"""Make a recording from files of other programs: `rtdecode import`."""
