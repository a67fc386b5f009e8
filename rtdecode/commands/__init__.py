"""What the commands of rtdecode share: their options."""
