"""Load on a registry of real processes, over HTTP alone, so that any checkout of the registry can be measured."""
