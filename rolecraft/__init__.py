"""Reliable tool-calling agents from small open-weight models."""
