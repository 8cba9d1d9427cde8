"""The web site: the book, the course in the browser, and the live model."""
