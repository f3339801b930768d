"""Turn model sources into firmware for a target."""
