"""Faster files."""

from fast_sqlite import no_waiting_for_the_disk as no_waiting_for_the_disk
