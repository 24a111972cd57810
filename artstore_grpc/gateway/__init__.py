"""The HTTP door: HTTP ⇄ the messages of the API. It knows a `Backend`, and nothing of what stands behind one."""
