"""Where EEG and volumes come from."""
