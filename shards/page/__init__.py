"""What all pages for people share: the document around them, their style, charts and pictures."""
