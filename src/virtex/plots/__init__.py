"""Images to look at: contact sheets, attention panels and the text on them."""
