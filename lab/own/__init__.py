"""A task of one's own: the file that ``lab new`` writes, and the page that builds it step by step."""
