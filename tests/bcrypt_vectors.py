"""bcrypt hashes that other implementations made, with what they are of. None was made by the library under test.

Sources: the first four from Openwall's crypt_blowfish 1.3, `wrapper.c`; two from jBCrypt's `TestBCrypt.java`; the last
two made by Debian's libxcrypt 4.4.33 (`perl -e 'print crypt("…", "$2b$10$…")'`).
"""

from __future__ import annotations

VECTORS: list[tuple[str, str]] = [
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
    ("U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
    (
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored",
        "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
    ),
    ("abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
    ("~!@#$%^&*()      ~!@#$%^&*()PNBFRD", "$2a$06$fPIsBO8qRqkjj273rfaOI.HtSV9jLDpTbZn782DC6/t7qT67P6FfO"),
    ("legacy password é", "$2y$08$abcdefghijklmnopqrstuuIXH51Q9REgvPCqSZtuRhj.oqNSBKCMO"),
    ("s3cr3t:with/odd+chars", "$2b$10$N9qo8uLOickgx2ZMRZoMyesrSIjnlx1jZbXFhdk5XKc9C/zvMwX1S"),
]

ABC = "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"
"""Of `abc`."""
