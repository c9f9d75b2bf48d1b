"""The command ``demo``. Isolated workers import it, too, so what it needs is in its modules."""
