"""Models: fetch, convert, quantize, and what the files hold."""
