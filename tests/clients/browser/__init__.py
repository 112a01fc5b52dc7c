"""What a real browser does with the streams and the page."""
