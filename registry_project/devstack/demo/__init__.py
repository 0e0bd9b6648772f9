"""`make demo`: six processes of three services come and go, and a caller watches the registry notice."""
