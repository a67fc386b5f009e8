"""The layouts that data sets were published in, a module each."""
