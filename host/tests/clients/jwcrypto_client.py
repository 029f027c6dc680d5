"""Encrypts standard input with jwcrypto, or decrypts it:

    python3 jwcrypto_client.py encrypt|decrypt KEYFILE KID [CLAIMS AS JSON]
"""

import json
import sys

from jwcrypto import jwe, jwk

what, file, kid, *claims = sys.argv[1:]
with open(file, encoding="ascii") as opened:
    key = jwk.JWK(kty="oct", k=opened.read().strip())
data = sys.stdin.buffer.read()
if what == "encrypt":
    header = {"alg": "dir", "enc": "A256GCM", "kid": kid} | json.loads(claims[0] if claims else "{}")
    token = jwe.JWE(data, protected=json.dumps(header))
    token.add_recipient(key)
    sys.stdout.write(token.serialize(compact=True))
else:
    token = jwe.JWE(algs=["dir", "A256GCM"])
    token.deserialize(data.decode().strip(), key)
    if token.jose_header["kid"] != kid:
        sys.exit(f"kid is {token.jose_header['kid']}")
    sys.stdout.buffer.write(token.payload)
