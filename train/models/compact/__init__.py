"""The small video model: a brain encoder tells, and a flow draws in a few steps."""
