"""A replay as one page of HTML, which needs neither network nor script."""
