"""Measurements that print figures and never break the gate."""
